"""What waits for the committer: a bounded queue, from which it takes batches."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from cqrs.commit.command import Command, Outcome, Submission
from cqrs.commit.metrics import CommitMetrics
from cqrs.errors import DeadlinePassed, Overloaded, ShuttingDown, detach

_QUIET_TURNS = 6
"""A call takes several turns of the loop from its arrival to here; this many without a new one: that was all."""


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """Bounds on what waits and on what is written at once."""

    batch_commands: int = 512
    batch_bytes: int = 4 * 1024 * 1024
    queued_commands: int = 4096
    queued_bytes: int = 64 * 1024 * 1024


class PendingCommand(NamedTuple):
    """A command of a batch, and who waits for its outcome."""

    command: Command
    future: asyncio.Future[Outcome]

    def answer(self, outcome: Outcome | Exception) -> None:
        """Tell who waits, if somebody still does."""
        if self.future.done():
            return
        if isinstance(outcome, Outcome):
            self.future.set_result(outcome)
        else:
            self.future.set_exception(outcome)


class _Waiting(NamedTuple):
    submission: Submission
    future: asyncio.Future[Outcome]


class CommandQueue:
    """First come, first served. Bounded in requests and bytes before anything of them is looked at."""

    def __init__(self, limits: CommitLimits, metrics: CommitMetrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        metrics.queued_commands.set_function(lambda: len(self._waiting))
        metrics.queued_bytes.set_function(lambda: self._bytes)

    def put(self, submission: Submission) -> asyncio.Future[Outcome]:
        """Take a request in; its outcome will be set on the future. Until its batch is made up, cancelling drops it.

        Raises:
            Overloaded: too much waits.
            ShuttingDown: the queue is closed.
        """
        if self._closing:
            raise ShuttingDown
        limits = self._limits
        if len(self._waiting) >= limits.queued_commands or self._bytes >= limits.queued_bytes:
            self._metrics.refused.inc()
            raise Overloaded(f"{len(self._waiting)} commands are waiting: retry later")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(submission, future))
        self._bytes += submission.size_bytes
        self._wake.set()
        return future

    def close(self) -> None:
        """Take nothing more in."""
        self._closing = True
        self._wake.set()

    async def take(self) -> list[PendingCommand] | None:
        """The next batch, once there is something; None when the queue is closed and empty.

        It may be empty: of malformed requests, which are answered here, and of those that nobody waits for any more.
        """
        while not self._waiting:
            if self._closing:
                return None
            self._wake.clear()
            await self._wake.wait()
        await self._gather()
        return self._batch()

    async def _gather(self) -> None:
        """Let in what has arrived already: turns of the event loop, for as long as each brings more.

        A busy loop has calls that it has not come to yet. Without this, small batches would keep it busy with commits.
        """
        waiting, quiet = len(self._waiting), 0
        while quiet < _QUIET_TURNS and waiting < self._limits.batch_commands:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._waiting) == waiting else 0
            waiting = len(self._waiting)

    def _batch(self) -> list[PendingCommand]:
        limits, now = self._limits, asyncio.get_running_loop().time()
        batch: list[PendingCommand] = []
        size = 0
        while self._waiting and len(batch) < limits.batch_commands and size < limits.batch_bytes:
            submission, future = self._waiting.popleft()
            self._bytes -= submission.size_bytes
            if future.done():
                self._metrics.expired.inc()
            elif submission.deadline is not None and submission.deadline < now:
                self._metrics.expired.inc()
                future.set_exception(DeadlinePassed())
            else:
                size += submission.size_bytes
                try:
                    batch.append(PendingCommand(submission.prepare(), future))
                except Exception as error:  # noqa: BLE001 - raised again where the outcome is awaited
                    future.set_exception(detach(error))
        return batch
