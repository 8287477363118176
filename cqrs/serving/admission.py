"""Which calls are let in: none while draining, and not more at a time than the limit."""

from __future__ import annotations

import asyncio

from cqrs.errors import Overloaded, ServiceError, ShuttingDown


class Admission:
    """Counts the calls in progress. To be used on the event loop's thread.

    `running`, `limit` and `open` are read and `running` is written by the wrapped handlers directly: a method call for
    each would cost every RPC. A draining server has `limit` 0, so that one comparison is all a call pays.
    """

    __slots__ = ("_configured_limit", "_idle", "draining", "limit", "running")

    def __init__(self, limit: int) -> None:
        self._configured_limit = limit
        self.limit = limit
        """A call is refused when `running` has reached this."""
        self.running = 0
        """Calls in progress."""
        self.draining = asyncio.Event()
        """Set once no new calls are let in; long streams should end."""
        self._idle = asyncio.Event()

    def close(self) -> None:
        """Let no new call in from now on."""
        self.limit = 0
        self.draining.set()
        self.leave_idle()

    def leave_idle(self) -> None:
        """To be called after a call has left, when draining."""
        if not self.running and not self.limit:
            self._idle.set()

    async def wait_idle(self, seconds: float) -> bool:
        """After `close`: wait until no call is in progress; False if that took longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return not self.running
        return True

    def refusal(self) -> ServiceError:
        """Why a call is refused now."""
        if self.draining.is_set():
            return ShuttingDown()
        return Overloaded(
            f"{self._configured_limit} calls are in progress, which is this server's limit: retry in a moment"
        )
