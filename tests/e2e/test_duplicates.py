"""Invariant 4: a command that many send at once takes effect once, though its server is killed before it can say so."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from cqrs.store.sql import SqlEventStore
from orderstream.orders.v1.commands_pb2 import CreateOrderRequest
from tests.e2e.members import Member, members
from tests.integration.command_server.rig import NOWHERE, order
from tests.integration.logs import assert_one_gapless_chain, new_write_db

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

DUPLICATES = 200


class Setup(NamedTuple):
    database: str
    servers: int
    workers: int


@pytest.mark.parametrize(
    "setup",
    [Setup("sqlite", 1, 1), Setup("sqlite", 1, 2), Setup("postgresql", 1, 2), Setup("postgresql", 2, 1)],
    ids=lambda setup: f"{setup.servers} on {setup.database} with {setup.workers}",
)
def test_duplicates_of_a_command_whose_server_is_killed_before_the_answer_have_one_effect_and_one_answer(
    tmp_path: Path, request: pytest.FixtureRequest, setup: Setup
) -> None:
    sqlite = setup.database == "sqlite"
    url = new_write_db(tmp_path) if sqlite else request.getfixturevalue("postgresql_write_db")

    async def scenario() -> None:
        # The first batch of each server is a customer's; in the next it dies after its COMMIT, before it can answer.
        async with members(
            setup.servers, tmp_path, url, NOWHERE, "committer.before_answer=kill:2", workers=str(setup.workers)
        ) as servers:
            for number, member in enumerate(servers):
                await member.server.register(f"c-{number}")
            duplicate = order(customer_id="c-0", request_id="r-1")
            sent = [send(servers[number % len(servers)], duplicate) for number in range(DUPLICATES)]
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            assert all(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)
            for member in servers:
                assert await member.ended() == -signal.SIGKILL
                await member.start()
            sent = [send(servers[number % len(servers)], duplicate) for number in range(DUPLICATES)]
            answers = await asyncio.gather(*sent)
            assert len(set(answers)) == 1
            assert answers[0][1], "the outcome was stored by the COMMIT that nobody was told of"
            for member in servers:
                assert await reason_of(member, order(customer_id="c-0", request_id="r-1", order_id="another")) == (
                    grpc.StatusCode.ALREADY_EXISTS,
                    "REQUEST_ID_REUSED",
                )
        store = SqlEventStore(url)
        log = store.read_log(1, 100)
        store.close()
        assert_one_gapless_chain(log)
        assert [event.request_id for event in log if event.aggregate_type == "order"] == ["r-1"]

    asyncio.run(scenario())


def test_a_second_server_on_a_file_is_refused_and_told_why(tmp_path: Path) -> None:
    url = new_write_db(tmp_path)

    async def scenario() -> None:
        async with members(1, tmp_path, url, NOWHERE) as (first,):
            (tmp_path / "elsewhere").mkdir()
            second = Member(tmp_path / "elsewhere" / "server", url, NOWHERE, {})
            pid = first.server.process.pid
            with pytest.raises(AssertionError, match=f"(?s)status 78.*process {pid}.*on SQLite there is one"):
                await second.start()
            await first.server.register()  # undisturbed

    asyncio.run(scenario())


async def send(member: Member, request: CreateOrderRequest) -> tuple[bytes, bool]:
    """The answer's bytes, and whether it is marked as one that was stored."""
    raw: Any = member.server.channel.unary_unary("/orderstream.orders.v1.OrderCommandService/CreateOrder")
    call = raw(request.SerializeToString(), timeout=30)
    answer: bytes = await call
    return answer, ("x-idempotent-replayed", "true") in tuple(await call.trailing_metadata())


async def reason_of(member: Member, request: CreateOrderRequest) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await send(member, request)
    details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(bytes(details)).details[0].Unpack(info)
    return refused.value.code(), info.reason
