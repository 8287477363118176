"""The processes that are measured, each on a free port of the loopback device, all data in one scratch folder."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from cqrs.broker.embedded import EmbeddedBroker
from cqrs.database.engine import open_engine
from cqrs.database.migrations import Schema, upgrade_schema
from cqrs.store.schema import WRITE_SCHEMA
from readmodel.schema import READ_SCHEMA

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


class PartFailed(Exception):
    """A process of the system did not start, or died; the message ends with what it logged."""


class Served(NamedTuple):
    """A process that serves."""

    address: str
    """host:port of its gRPC endpoint."""
    pid: int

    @property
    def resident_bytes(self) -> int:
        """The memory that it and its children have in RAM; what several share (after a fork) counts once.

        From the kernel's accounts in /proc: Linux only.
        """
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(_proportional_bytes(pid) for pid in (str(self.pid), *children))


class System:
    """The parts of one system, started one by one; `stack` stops them in reverse."""

    def __init__(self, scratch: Path, stack: AsyncExitStack, write_db_url: str | None = None) -> None:
        """Have its data in `scratch`, a new folder, but the write DB at `write_db_url`, if that is given."""
        scratch.mkdir()
        self._scratch = scratch
        self._stack = stack
        self._nats_url = ""
        self._read_db_url = _with_schema(f"sqlite:///{scratch}/read.db", READ_SCHEMA)
        if write_db_url is None:
            self._write_db_url = new_write_db(scratch / "write.db")
        else:
            self._write_db_url = _with_schema(write_db_url, WRITE_SCHEMA)

    async def start_broker(self) -> None:
        """Start nats-server."""
        broker = await self._stack.enter_async_context(EmbeddedBroker(self._scratch / "jetstream"))
        self._nats_url = broker.url

    @asynccontextmanager
    async def command_servers(self, servers: int = 1, workers: int = 1) -> AsyncIterator[list[Served]]:
        """Have so many command servers running, each with so many workers."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    self._running(f"command-{number}", "command", write_db_url=self._write_db_url, workers=str(workers))
                )
                for number in range(servers)
            ]

    async def start_projector(self, command_server: str) -> Served:
        """Start the projector."""
        settings = {"read_db_url": self._read_db_url, "command_server": command_server}
        return await self._stack.enter_async_context(self._running("projector", "projector", **settings))

    async def start_query_server(self) -> Served:
        """Start the query server."""
        return await self._stack.enter_async_context(self._running("query", "query", read_db_url=self._read_db_url))

    def _running(self, name: str, server: str, **settings: str) -> AbstractAsyncContextManager[Served]:
        common = {"nats_url": self._nats_url, "log_level": "warning"}
        return running(name, self._scratch, "-m", "cli", "serve", server, **common, **settings)


def new_write_db(file: Path) -> str:
    """Make an SQLite write DB with its schema; returns its URL."""
    return _with_schema(f"sqlite:///{file}", WRITE_SCHEMA)


def _with_schema(url: str, schema: Schema) -> str:
    engine = open_engine(url, access="write")
    upgrade_schema(engine, schema)
    engine.dispose()
    return url


@asynccontextmanager
async def running(name: str, scratch: Path, *arguments: str, **settings: str) -> AsyncIterator[Served]:
    """Run `python ARGUMENTS` and give it once it serves gRPC; stop it in the end.

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
        yield Served(await _address(name, process, ready, log), process.pid)
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


def _proportional_bytes(pid: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
