"""The signal that tells a process to stop."""

from __future__ import annotations

import asyncio


class StopSignal:
    """Set once, when the process should stop; everything long-running waits on it or looks at it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""
        """Why; empty until it is set."""

    def set(self, reason: str) -> None:
        """Ask everything to stop. The first reason stays. To be called on the event loop's thread."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    def is_set(self) -> bool:
        """Whether the process should stop."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when the process should stop."""
        await self._event.wait()

    async def wait_for(self, seconds: float) -> bool:
        """Sleep, but wake when the process should stop. Returns whether it should."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return self._event.is_set()
        return True
