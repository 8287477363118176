"""The processes that are measured, each on a free port of the loopback device, all data in one scratch folder."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from cqrs.broker.embedded import EmbeddedBroker
from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.store.schema import WRITE_SCHEMA
from readmodel.schema import READ_SCHEMA

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


class PartFailed(Exception):
    """A process of the system did not start, or died; the message ends with what it logged."""


class System:
    """The parts, started one by one; `stack` stops them in reverse."""

    def __init__(self, scratch: Path, stack: AsyncExitStack) -> None:
        self._scratch = scratch
        self._stack = stack
        self._write_db_url = f"sqlite:///{scratch}/write.db"
        self._read_db_url = f"sqlite:///{scratch}/read.db"
        self._nats_url = ""
        self._command_server = ""
        for url, schema in ((self._write_db_url, WRITE_SCHEMA), (self._read_db_url, READ_SCHEMA)):
            engine = open_engine(url, access="write")
            upgrade_schema(engine, schema)
            engine.dispose()

    async def start_echo(self) -> str:
        """Start the bare gRPC server; returns its address, host:port, as do those below."""
        ready = str(self._scratch / "echo.json")
        return await self._stack.enter_async_context(running("echo", self._scratch, "-m", "bench.echo_server", ready))

    async def start_broker(self) -> None:
        """Start nats-server."""
        broker = await self._stack.enter_async_context(EmbeddedBroker(self._scratch / "jetstream"))
        self._nats_url = broker.url

    async def start_command_server(self) -> str:
        """Start the command server."""
        self._command_server = await self._serve("command", write_db_url=self._write_db_url)
        return self._command_server

    async def start_projector(self) -> str:
        """Start the projector."""
        return await self._serve("projector", read_db_url=self._read_db_url, command_server=self._command_server)

    async def start_query_server(self) -> str:
        """Start the query server."""
        return await self._serve("query", read_db_url=self._read_db_url)

    async def _serve(self, name: str, **settings: str) -> str:
        common = {"nats_url": self._nats_url, "log_level": "warning"}
        arguments = ("-m", "cli", "serve", name)
        return await self._stack.enter_async_context(running(name, self._scratch, *arguments, **common, **settings))


@asynccontextmanager
async def running(name: str, scratch: Path, *arguments: str, **settings: str) -> AsyncIterator[str]:
    """Run `python ARGUMENTS` and give the address at which it serves gRPC; stop it in the end.

    Args:
        name: names its log and its ready file in `scratch`.
        scratch: a folder for its files.
        arguments: what Python runs.
        settings: settings of an Orderstream server, as it reads them from its environment.

    Raises:
        PartFailed: it does not come up, or ends with a status other than 0.
    """
    ready, log = scratch / f"{name}.json", scratch / f"{name}.log"
    ready.unlink(missing_ok=True)
    given = {
        "listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "ready_file": str(ready),
        "stop_with_parent": "true",
    }
    environment = {f"ORDERSTREAM_{key.upper()}": value for key, value in (given | settings).items()}
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **environment},
        )
    try:
        yield await _address(name, process, ready, log)
    finally:
        await _stop(process)
    if process.returncode != 0:
        raise PartFailed(f"{name} ended with status {process.returncode}:\n{log.read_text()}")


async def _address(name: str, process: asyncio.subprocess.Process, ready: Path, log: Path) -> str:
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not ready.exists():
                if process.returncode is not None:
                    raise PartFailed(f"{name} ended with status {process.returncode}:\n{log.read_text()}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise PartFailed(f"{name} does not serve after {_START_SECONDS} s:\n{log.read_text()}") from None
    return str(json.loads(ready.read_text())["grpc"])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
