"""The threads on which the relay asks the write DB, so that a slow one does not keep the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class RelayThreads:
    """Two: the heartbeat does not wait for a page of the log."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="relay")

    async def run(self, work: Callable[[], _T]) -> _T:
        """What `work` returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def release(self) -> None:
        """Give the threads back; waits for what they are doing."""
        self._pool.shutdown(wait=True)
