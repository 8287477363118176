"""Several command servers on one PostgreSQL log: one publishes, the others stand by and take over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from cqrs.broker.connection import connect_broker
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.relay.stream import StreamSettings, ensure_stream
from cqrs.store.sql import SqlEventStore
from tests.e2e.members import Member, members
from tests.integration.cli.test_db_grant import Role
from tests.integration.command_server.rig import order
from tests.integration.logs import assert_one_gapless_chain
from tests.integration.relay.test_relay import stream_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SELDOM = {"relay_poll_seconds": "60"}
"""What another server commits is looked for so seldom that only news of it can be why it is on the stream."""


async def within(seconds: float, condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


async def publisher_of(servers: Sequence[Member], before: Sequence[float]) -> Member:
    """The one server that has published since `before`."""
    now = await published_by(servers)
    changed = [member for member, was, is_ in zip(servers, before, now, strict=True) if is_ > was]
    assert len(changed) == 1, (before, now)
    return changed[0]


async def published_by(servers: Sequence[Member]) -> list[float]:
    return [await member.server.metric("orderstream_relay_events_total") for member in servers]


def test_one_server_publishes_and_another_takes_over_when_it_is_killed_frozen_or_stopped(
    tmp_path: Path, role: Role
) -> None:
    committed = 0
    role.grant()  # all that they do, they do with no more than the rights that they need

    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path / "jetstream") as broker:
            client = await connect_broker(broker.url, "reader")

            async def commit_on(*some: Member) -> None:
                """An order on each, and all that is committed is on the stream."""
                nonlocal committed
                for member in some:
                    committed += 1
                    await member.server.orders.CreateOrder(order(f"o-{committed}"), timeout=20)

                async def is_on_the_stream() -> bool:
                    info = await client.jetstream().stream_info("ORDERSTREAM")
                    return info.state.last_seq == committed + 1

                await within(30, is_on_the_stream, f"{committed + 1} events on the stream")

            async with members(3, tmp_path, role.url, broker.url, **SELDOM) as servers:
                await servers[0].server.register()
                before = [0.0] * 3
                await commit_on(*servers, *servers)
                first = await publisher_of(servers, before)
                await first.kill()
                others = [member for member in servers if member is not first]
                before = await published_by(others)
                await commit_on(*others)
                second = await publisher_of(others, before)
                (third,) = (member for member in others if member is not second)
                pausing = asyncio.create_task(second.pause(12))
                await asyncio.sleep(0.1)
                await commit_on(third)
                await pausing
                # It was the publisher, and may believe so for a moment: the broker knows better.
                await commit_on(second, third, second)
                await first.start()
                await commit_on(*servers)
                await third.stop()
                await commit_on(first, second)
            store = SqlEventStore(role.url)
            log = store.read_log(1, 1000)
            store.close()
            assert_one_gapless_chain(log)
            assert await stream_of(client) == log
            await client.close()

    asyncio.run(scenario())


def test_on_a_stream_of_another_history_no_server_takes_commands_until_that_is_mended(
    tmp_path: Path, postgresql_write_db: str
) -> None:
    async def scenario() -> None:
        async with (
            EmbeddedBroker(tmp_path / "jetstream") as broker,
            members(2, tmp_path, postgresql_write_db, broker.url) as servers,
        ):
            await servers[0].server.register()
            operator = await connect_broker(broker.url, "operator")

            async def refuses(member: Member) -> bool:
                call: Any = member.server.orders.CreateOrder(order(), timeout=20)
                try:
                    await call
                except grpc.aio.AioRpcError as error:
                    halted = "until an operator has acted" in (error.details() or "")
                    return halted and error.code() is grpc.StatusCode.UNAVAILABLE
                return False

            async def accepts(member: Member) -> bool:
                return not await refuses(member)

            await operator.jetstream().delete_stream("ORDERSTREAM")
            foreign = StreamSettings("ORDERSTREAM", "orderstream", 1)
            await ensure_stream(operator, foreign, "11111111-1111-4111-8111-111111111111")
            for member in servers:
                await within(30, lambda m=member: refuses(m), "commands are refused")  # type: ignore[misc]
            await operator.jetstream().delete_stream("ORDERSTREAM")
            for member in servers:
                await within(30, lambda m=member: accepts(m), "commands are taken again")  # type: ignore[misc]
            await operator.close()

    asyncio.run(scenario())
