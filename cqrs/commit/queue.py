"""What waits for the committer: a bounded queue, from which it takes batches."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cqrs.commit.command import Command, Outcome, Submission
from cqrs.commit.metrics import CommitMetrics
from cqrs.errors import DeadlinePassed, Overloaded, ShuttingDown, detach

_QUIET_TURNS = 2
"""The loop has nothing more when so many turns have brought nothing."""


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """Bounds on what waits and on what is written at once."""

    batch_commands: int = 512
    batch_bytes: int = 4 * 1024 * 1024
    queued_commands: int = 4096
    queued_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class Batch:
    """Some submissions, and their commands in order."""

    commands: list[Command] = field(default_factory=list)
    parts: list[tuple[Submission, Sequence[Command | Exception]]] = field(default_factory=list)

    def add(self, submission: Submission) -> None:
        """Take a submission in, or refuse it if it is malformed as a whole."""
        try:
            prepared = submission.prepare()
        except Exception as error:  # noqa: BLE001 - raised again where the outcome is awaited
            submission.refuse(detach(error))
            return
        self.parts.append((submission, prepared))
        self.commands.extend(each for each in prepared if isinstance(each, Command))

    def answer(self, outcomes: Sequence[Outcome | Exception]) -> None:
        """Tell everybody: one outcome for each of `commands`."""
        following = iter(outcomes)
        for submission, prepared in self.parts:
            submission.answer([next(following) if isinstance(each, Command) else each for each in prepared])

    def refuse(self, error: Exception) -> None:
        """Tell everybody the same."""
        for submission, _ in self.parts:
            submission.refuse(error)


class CommandQueue:
    """First come, first served. Bounded in commands and bytes before anything of them is looked at."""

    def __init__(self, limits: CommitLimits, metrics: CommitMetrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._waiting: deque[Submission] = deque()
        self._commands = 0
        self._bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        metrics.queued_commands.set_function(lambda: self._commands)
        metrics.queued_bytes.set_function(lambda: self._bytes)

    def put(self, submission: Submission) -> None:
        """Take a submission in; it will be told what became of it.

        Raises:
            Overloaded: too much waits.
            ShuttingDown: the queue is closed.
        """
        if self._closing:
            raise ShuttingDown
        limits = self._limits
        full = self._commands >= limits.queued_commands or self._bytes >= limits.queued_bytes
        if full and not submission.paced:
            self._metrics.refused.inc()
            raise Overloaded(f"{self._commands} commands are waiting: retry later")
        self._waiting.append(submission)
        self._commands += submission.commands
        self._bytes += submission.size_bytes
        self._wake.set()

    def close(self) -> None:
        """Take nothing more in."""
        self._closing = True
        self._wake.set()

    async def take(self) -> Batch | None:
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

        A busy loop has messages that it has not come to yet. Without this, small batches would keep it committing.
        """
        waiting, quiet = len(self._waiting), 0
        while quiet < _QUIET_TURNS and self._commands < self._limits.batch_commands:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._waiting) == waiting else 0
            waiting = len(self._waiting)

    def _batch(self) -> Batch:
        limits, now = self._limits, time.monotonic()
        batch = Batch()
        size = 0
        while self._waiting and len(batch.commands) < limits.batch_commands and size < limits.batch_bytes:
            submission = self._waiting.popleft()
            self._commands -= submission.commands
            self._bytes -= submission.size_bytes
            if submission.abandoned:
                self._metrics.expired.inc(submission.commands)
            elif submission.deadline is not None and submission.deadline < now:
                self._metrics.expired.inc(submission.commands)
                submission.refuse(DeadlinePassed())
            else:
                size += submission.size_bytes
                batch.add(submission)
        return batch
