"""Several command servers on one log, which a test kills, pauses and starts again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.integration.command_server.rig import CommandServer, command_server


class Member:
    """One of them: a process at a time, each with a port of its own."""

    def __init__(self, folder: Path, url: str, nats_url: str, settings: dict[str, str]) -> None:
        folder.mkdir()
        self._folder = folder
        self._url = url
        self._nats_url = nats_url
        self._settings = settings
        self._stack = AsyncExitStack()
        self.server: CommandServer

    @property
    def log(self) -> str:
        """What all of its processes have logged."""
        return (self._folder / "command.log").read_text()

    async def start(self, failpoints: str = "") -> None:
        """Start a process, and wait until it serves."""
        self.server = await self._stack.enter_async_context(
            command_server(
                self._folder,
                nats_url=self._nats_url,
                failpoints=failpoints,
                write_db_url=self._url,
                **self._settings,
            )
        )

    async def kill(self) -> None:
        """Kill the process that decides; its workers end by themselves."""
        self.server.process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait until the process has ended; returns its exit status."""
        status = await asyncio.wait_for(self.server.process.wait(), 30)
        await self._stack.aclose()
        return status

    async def pause(self, seconds: float) -> None:
        """Freeze the process that decides for a while, wherever it is."""
        os.kill(self.server.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self.server.process.pid, signal.SIGCONT)

    async def stop(self) -> None:
        """Stop it in order."""
        await self._stack.aclose()


@asynccontextmanager
async def members(
    count: int, folder: Path, url: str, nats_url: str, failpoints: str = "", **settings: str
) -> AsyncIterator[list[Member]]:
    """So many command servers on the log at `url`, all of them serving."""
    found = [Member(folder / f"server-{number}", url, nats_url, settings) for number in range(count)]
    try:
        await asyncio.gather(*(member.start(failpoints) for member in found))
        yield found
    finally:
        await asyncio.gather(*(member.stop() for member in found))
