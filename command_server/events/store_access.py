"""How EventService comes to the write DB: on threads of its own, with errors as the contract has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from cqrs.errors import StoreUnavailable
from cqrs.store.port import StoreError

_T = TypeVar("_T")

PATIENCE_SECONDS = 5.0
"""How long a subscription that runs waits for a write DB that is away: a restart, a fail-over to a standby."""

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5


class ReaderThreads:
    """A bounded number of threads that read; who finds all of them busy waits for its turn."""

    def __init__(self, threads: Executor, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Read on `threads`, which stay the caller's to shut down."""
        self._threads = threads
        self._patience_seconds = patience_seconds

    async def read(self, work: Callable[[], _T]) -> _T:
        """What `work` returns.

        Raises:
            StoreUnavailable: the write DB failed.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except StoreError as error:
            raise StoreUnavailable("the write DB is not available: retry") from error

    async def read_patiently(self, work: Callable[[], _T]) -> _T:
        """As `read`, but again and again for some seconds if the write DB fails. For work that may be done twice."""
        give_up = asyncio.get_running_loop().time() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self.read(work)
            except StoreUnavailable:
                if asyncio.get_running_loop().time() + pause > give_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
