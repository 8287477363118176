"""The command server as a process whose PostgreSQL goes away."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest
from sqlalchemy.engine import URL

from cqrs.broker.embedded import EmbeddedBroker
from tests.integration.command_server.rig import command_server, order, run
from tests.integration.postgresql import PASSWORD, Databases, PostgresServer, postgresql_server, text_of


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgresql_server() as running:
        yield running


@pytest.fixture
def url(server: PostgresServer) -> URL:
    return Databases(server.url).with_schema()


def test_a_restart_of_the_database_under_load_gives_each_command_one_effect_and_each_client_the_truth(
    tmp_path: Path, server: PostgresServer, url: URL
) -> None:
    async def scenario() -> None:
        async with (
            EmbeddedBroker(tmp_path / "jetstream") as broker,
            command_server(tmp_path, nats_url=broker.url, write_db_url=text_of(url)) as commands,
        ):
            await commands.register()
            told: list[str | None] = []

            async def insist(number: int) -> None:
                for _ in range(200):
                    try:
                        await commands.orders.CreateOrder(order(request_id=f"r-{number}"), timeout=10)
                    except grpc.aio.AioRpcError as error:
                        told.append(error.details())
                        await asyncio.sleep(0.1)
                    else:
                        return
                raise AssertionError(f"not within 200 attempts: {told[-1]}")

            working = asyncio.gather(*(insist(number) for number in range(50)))
            for crash in (True, False, True):
                server.stop(crash=crash)
                await asyncio.sleep(0.5)
                server.start()
                more = [insist(number) for number in range(len(told) + 1000, len(told) + 1020)]
                await asyncio.gather(*more)
            await working
            assert all("the write DB is not available; " in (text or "") for text in told), told
            log = [event.request_id for event in await commands.read_log() if event.aggregate_type == "order"]
            assert len(log) == len(set(log))
            assert {f"r-{number}" for number in range(50)} <= set(log)
            await commands.until("orderstream_relay_position", len(log) + 1)

    run(scenario)


def test_a_server_whose_database_is_away_stops_in_order(tmp_path: Path, server: PostgresServer, url: URL) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, write_db_url=text_of(url)) as commands:
            await commands.register()
            server.stop()
            commands.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(commands.process.wait(), 30) == 0

    run(scenario)


def test_a_database_that_is_away_at_the_start_is_told_with_a_hint_and_without_its_password(
    tmp_path: Path, server: PostgresServer, url: URL
) -> None:
    server.stop()

    async def scenario() -> None:
        with pytest.raises(AssertionError, match=r"(?s)status 78.*check host and port in the URL") as failed:
            async with command_server(tmp_path, write_db_url=text_of(url)):
                pass
        assert PASSWORD not in str(failed.value)

    run(scenario)
