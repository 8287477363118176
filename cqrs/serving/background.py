"""Long-running tasks of a process, none of which may die unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal

_log = get_logger(__name__)


class Background:
    """Supervises named tasks: the first one that dies of an exception stops the process with that exception.

    Use it as a context manager around the process's life. Leaving it cancels what still runs, waits for it, and raises
    the error of the task that failed, if one did.

        async with Background(stop) as background:
            background.start("relay", relay.run())
            await stop.wait()
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._failure: BaseException | None = None

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in a task. A task that returns has done its work; that is no failure."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = name
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel what still runs, wait until it has ended, and raise the first failure."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        name = self._tasks.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            _log.debug("background task has ended", task=name)
            return
        _log.error("a background task failed", task=name, exc_info=error)
        if self._failure is None:
            self._failure = error
            self._stop.set(f"{name} failed: {error}")
