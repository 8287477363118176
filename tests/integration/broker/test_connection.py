"""Connections that outlive the broker's absence."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cqrs.broker.connection import BrokerConnection, BrokerLost
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.errors import UnsupportedBroker
from cqrs.serving.background import Background
from cqrs.serving.stop import StopSignal
from tests.integration.serving.support import until


@asynccontextmanager
async def connecting(url: str, **callbacks: object) -> AsyncIterator[tuple[BrokerConnection, StopSignal]]:
    stop = StopSignal()
    connection = BrokerConnection(url, "test", **callbacks)  # type: ignore[arg-type]
    async with Background(stop) as background:
        background.start("broker connection", connection.run(stop))
        yield connection, stop


def kill(broker: EmbeddedBroker) -> None:
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)


def test_a_broker_that_is_away_at_the_start_is_connected_when_it_comes(tmp_path: Path, unused_port: int) -> None:
    async def scenario() -> None:
        async with connecting(f"nats://127.0.0.1:{unused_port}") as (connection, stop):
            await asyncio.sleep(0.5)
            async with EmbeddedBroker(tmp_path, port=unused_port):
                async with asyncio.timeout(10):
                    assert await connection.wait_connected(stop)
                assert connection.connects == 1
                await connection.client.flush()

    asyncio.run(scenario())


def test_it_is_connected_again_after_every_kill_of_the_broker_with_its_subscriptions(tmp_path: Path) -> None:
    told: list[str] = []

    async def on_connect() -> None:
        told.append("connect")

    async def on_disconnect() -> None:
        told.append("disconnect")

    async def scenario() -> None:
        broker = EmbeddedBroker(tmp_path)
        await broker.start()
        async with connecting(broker.url, on_connect=on_connect, on_disconnect=on_disconnect) as (connection, stop):
            assert await connection.wait_connected(stop)
            client = connection.client
            subscription = await client.subscribe("news")
            for round_number in range(1, 6):
                kill(broker)
                await broker.wait()
                async with asyncio.timeout(10):
                    while connection.connected:  # noqa: ASYNC110 - there is no event for it
                        await asyncio.sleep(0.01)
                    broker = EmbeddedBroker(tmp_path, port=broker.port)
                    await broker.start()
                    assert await connection.wait_connected(stop)
                assert connection.connects == round_number + 1
                assert connection.client is client
                await client.publish("news", str(round_number).encode())
                assert (await subscription.next_msg(timeout=5)).data == str(round_number).encode()
            assert told == ["connect"] + ["disconnect", "connect"] * 5
        await broker.stop()

    asyncio.run(scenario())


def test_a_stop_ends_the_wait_for_a_broker_that_never_comes(unused_port: int) -> None:
    async def scenario() -> None:
        async with connecting(f"nats://127.0.0.1:{unused_port}") as (connection, stop):
            asyncio.get_running_loop().call_later(0.2, stop.set, "enough")
            async with asyncio.timeout(5):
                assert not await connection.wait_connected(stop)
            assert not connection.connected

    asyncio.run(scenario())


def test_it_is_connected_until_it_is_closed_also_after_a_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path) as broker:
            async with connecting(broker.url) as (connection, stop):
                assert await connection.wait_connected(stop)
                stop.set("enough")
                await asyncio.sleep(0.05)
                await connection.client.flush()
            assert connection.client.is_closed

    asyncio.run(scenario())


def test_an_old_broker_stops_the_process() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"jetstream":true}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = BrokerConnection(f"nats://127.0.0.1:{port}", "test")
        with pytest.raises(UnsupportedBroker, match=r"2\.10\.0"):
            await asyncio.wait_for(connection.run(StopSignal()), 5)
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


def test_a_connection_that_is_refused_for_good_stops_the_process() -> None:
    refusing = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"jetstream":true}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
                if line and refusing.is_set():
                    break
            if line.startswith(b"PUB"):
                writer.write(b"-ERR 'Authorization Violation'\r\n")
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = BrokerConnection(f"nats://127.0.0.1:{port}", "test")
        running = asyncio.ensure_future(connection.run(StopSignal()))
        assert await connection.wait_connected(StopSignal())
        await connection.client.publish("x", b"")
        with pytest.raises(BrokerLost, match=r"(?i)authorization"):
            await asyncio.wait_for(running, 5)
        refusing.set()
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


def test_an_error_of_a_callback_stops_the_process_instead_of_the_reconnecting(tmp_path: Path) -> None:
    async def on_connect() -> None:
        raise ValueError("a wheel came off")

    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path) as broker:
            connection = BrokerConnection(broker.url, "test", on_connect=on_connect)
            with pytest.raises(ValueError, match="a wheel came off"):
                await asyncio.wait_for(connection.run(StopSignal()), 5)

    asyncio.run(scenario())


def test_many_kills_in_quick_succession_leave_a_working_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker = EmbeddedBroker(tmp_path)
        await broker.start()
        async with connecting(broker.url) as (connection, stop):
            for _ in range(8):
                assert await connection.wait_connected(stop)
                kill(broker)
                await broker.wait()
                broker = EmbeddedBroker(tmp_path, port=broker.port)
                await broker.start()
            await until(lambda: connection.client.is_connected)
            async with asyncio.timeout(10):
                assert await connection.wait_connected(stop)
                await connection.client.flush(timeout=5)
        await broker.stop()

    asyncio.run(scenario())


def test_each_new_reason_of_an_outage_is_told_once_and_kept(
    tmp_path: Path, unused_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        broker = EmbeddedBroker(tmp_path, port=unused_port)
        await broker.start()
        async with connecting(broker.url) as (connection, stop):
            assert await connection.wait_connected(stop)
            assert connection.last_error == ""
            kill(broker)
            await broker.wait()
            await until(lambda: "refused" in connection.last_error.lower() or "Connect" in connection.last_error)
            await asyncio.sleep(1)
            told = [line for line in caplog.messages if "cannot be reached; trying again" in line]
            assert told
            assert len(told) == len(set(told))
            broker = EmbeddedBroker(tmp_path, port=unused_port)
            await broker.start()
            assert await connection.wait_connected(stop)
            assert connection.last_error == ""
        await broker.stop()

    asyncio.run(scenario())
