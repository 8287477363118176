"""The committer: takes all commands that wait, decides them, and writes them as one transaction (group commit).

There are no timers: while one batch commits on its thread, the next gathers. The idea is that of group commit in
databases (DeWitt et al., "Implementation techniques for main memory database systems", 1984).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cqrs.commit.aggregates import AggregateState
from cqrs.commit.appender import Appender, CommitHadNoEffect
from cqrs.commit.command import Command, Outcome, Submission
from cqrs.commit.metrics import CommitMetrics
from cqrs.commit.plan import Plan
from cqrs.commit.queue import Batch, CommandQueue, CommitLimits
from cqrs.errors import HistoryDiverged, LogHalted, StoreUnavailable, detach
from cqrs.records import EventRecord
from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal
from cqrs.store.port import CommitUncertain, StoreError, WriteRefused

_T = TypeVar("_T")

_log = get_logger(__name__)

_PROBE_SECONDS = 1.0

_RETRY_PAUSES_SECONDS = (0.0, 0.1, 0.3)
"""Between the attempts at a batch of which nothing took effect: a connection that an idle firewall or a restarted
database has cut is mended by the next attempt, and nobody needs to know."""

_RETRY_WITHIN_SECONDS = 1.0
"""An attempt that failed so late is not followed by another, unless the write DB is known to work again: the callers
have waited long enough."""

_NOTHING_DONE = "nothing was done: retry"

OnCommit = Callable[[Sequence[EventRecord], Mapping[str, AggregateState]], None]
"""(events of a commit, the aggregates that its batch touched, as they are after it)."""


class Committer:
    """One per process: the only thing that appends to the log."""

    def __init__(
        self,
        appender: Appender,
        metrics: CommitMetrics,
        *,
        limits: CommitLimits,
        on_commit: OnCommit,
        on_store_health: Callable[[str | None], None],
    ) -> None:
        """Build it; `run` makes it work.

        Args:
            appender: decides and writes a batch; nobody else may use it.
            metrics: what operators see.
            limits: bounds on queue and batches.
            on_commit: told of each commit that wrote events, once they are durable.
            on_store_health: told why the store does not work, or None when it does.
        """
        self._appender = appender
        self._metrics = metrics
        self._on_commit = on_commit
        self._on_store_health = on_store_health
        self._queue = CommandQueue(limits, metrics)
        self._unhealthy = False
        self._halted = ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="committer")

    def submit(self, submission: Submission) -> None:
        """Take commands in; `submission` is told their outcomes once their events are durable.

        It is told one outcome for each command: an Outcome, InvalidRequest (it is malformed), VersionConflict,
        RequestIdReused and the like, or whatever the decision raised. Or it is refused as a whole: InvalidRequest,
        DeadlinePassed (before anything was done), StoreUnavailable (the write DB failed), LogHalted, or the error of a
        defect.

        Raises:
            Overloaded: too much waits; the commands were not taken.
            ShuttingDown: the server drains; the commands were not taken.
            LogHalted: an operator must act; the commands were not taken.
        """
        if self._halted:
            raise LogHalted(self._halted)
        self._queue.put(submission)

    def halt(self, why: str) -> None:
        """Refuse commands from here on, as there are two histories; empty: there are not, take them again."""
        self._halted = why

    async def run(self) -> None:
        """Commit batch after batch until `close`; then what still waits is committed and this returns."""
        while (batch := await self._queue.take()) is not None:
            if batch.commands and self._halted:
                batch.refuse(LogHalted(self._halted))  # they waited when it was found out
            elif batch.commands:
                await self._process(batch)
            else:
                batch.answer(())

    async def watch_store(self, stop: StopSignal) -> None:
        """Until `stop`: when the store has failed, try every second whether it works again.

        Without this a server that its health takes out of service would never get the command that proves it well.
        """
        while not await stop.wait_for(_PROBE_SECONDS):
            if self._unhealthy:
                try:
                    await self.on_writer_thread(self._appender.probe)
                except (StoreError, CommitUncertain, HistoryDiverged) as error:
                    self._not_healthy(str(error))
                else:
                    _log.info("the write DB works again")
                    self._healthy()

    def close(self) -> None:
        """Take no more commands; `run` ends when the queue is empty."""
        self._queue.close()

    async def on_writer_thread(self, work: Callable[[], _T]) -> _T:
        """Run `work` between two batches on the thread that writes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def release(self) -> None:
        """Give the thread back, once `run` has ended."""
        self._thread.shutdown(wait=True)

    async def _process(self, batch: Batch) -> None:
        commands = batch.commands
        started = time.perf_counter()
        try:
            plan = await self._commit_with_retries(commands)
        except WriteRefused as error:
            _log.error("the write DB refused a batch: its commands are tried one by one", error=str(error))
            self._appender.forget()
            batch.answer(await self._commit_one_by_one(commands))
            return
        except Exception as error:  # noqa: BLE001 - logged there, and answered to all who wait
            batch.refuse(self._failure(error, len(commands)))
            return
        self._accept(plan)
        batch.answer(plan.outcomes)
        metrics = self._metrics
        metrics.commit_seconds.observe(time.perf_counter() - started)
        metrics.batch_commands.observe(len(commands))
        metrics.events.inc(len(plan.events))
        metrics.replayed.inc(plan.replayed)
        metrics.cached_aggregates.set(self._appender.cached_aggregates)
        metrics.head_position.set(plan.head.position)

    async def _commit_with_retries(self, commands: Sequence[Command]) -> Plan:
        """Commit a batch. Tried again is only what certainly had no effect."""
        give_up_at = time.monotonic() + _RETRY_WITHIN_SECONDS
        for attempt, pause in enumerate(_RETRY_PAUSES_SECONDS):
            try:
                return await self._commit(commands)
            except WriteRefused:
                raise
            except StoreError as error:
                self._appender.forget()
                self._metrics.store_errors.inc()
                if time.monotonic() > give_up_at and not isinstance(error, CommitHadNoEffect):
                    raise
                if attempt:  # a connection that was cut says nothing about the database
                    self._not_healthy(str(error))
                _log.warning("a transaction failed, trying again", commands=len(commands), error=str(error))
            await asyncio.sleep(pause)
        return await self._commit(commands)

    async def _commit(self, commands: Sequence[Command]) -> Plan:
        plan = self._appender.decide_ahead(commands)
        loop = asyncio.get_running_loop()

        def in_doubt() -> None:
            loop.call_soon_threadsafe(self._not_healthy, "a COMMIT has not been answered")

        return await self.on_writer_thread(lambda: self._appender.execute(commands, plan, in_doubt))

    async def _commit_one_by_one(self, commands: Sequence[Command]) -> list[Outcome | Exception]:
        """The commands of a batch that was refused. Behind one that failed as the store did, none is executed.

        Else commands could take effect behind one of the same sender that did not, and all of them could wait for a
        database that is away.
        """
        outcomes: list[Outcome | Exception] = []
        for command in commands:
            outcome = await self._commit_alone(command)
            outcomes.append(outcome)
            if isinstance(outcome, (StoreUnavailable, LogHalted)):
                break
        left = len(commands) - len(outcomes)
        return outcomes + [StoreUnavailable(f"the write DB is not available; {_NOTHING_DONE}")] * left

    async def _commit_alone(self, command: Command) -> Outcome | Exception:
        """One command of a batch that was refused: either it is the bad one, or it must not suffer from that."""
        try:
            plan = await self._commit((command,))
        except Exception as error:  # noqa: BLE001 - logged there, and answered
            return self._failure(error, 1)
        self._accept(plan)
        return plan.outcomes[0]

    def _accept(self, plan: Plan) -> None:
        """The plan is durable: its states are now the current ones."""
        self._appender.accept(plan)
        self._healthy()
        if plan.events:
            self._on_commit(plan.events, plan.states)

    def _failure(self, error: Exception, commands: int) -> Exception:
        """Nothing that is in memory can be relied on any more; returns what to answer."""
        self._appender.forget()
        if isinstance(error, HistoryDiverged):
            self._not_healthy(str(error))
            _log.error("the log is not what it was: an operator must act", commands=commands, error=str(error))
            return LogHalted(str(error))
        if isinstance(error, (StoreError, CommitUncertain)) and not isinstance(error, WriteRefused):
            self._metrics.store_errors.inc()
            self._not_healthy(str(error))
            _log.error("the write DB failed", commands=commands, error=str(error), cause=repr(error.__cause__))
            unknown = isinstance(error, CommitUncertain)
            text = "the outcome is unknown: repeat the command with its request id" if unknown else _NOTHING_DONE
            return StoreUnavailable(f"the write DB is not available; {text}")
        # Whether it was committed is not known here, so nothing is tried again: a request id makes a repeat safe.
        _log.error("commands failed by a defect", commands=commands, exc_info=error)
        return detach(error)

    def _healthy(self) -> None:
        self._unhealthy = False
        self._on_store_health(None)

    def _not_healthy(self, why: str) -> None:
        self._unhealthy = True
        self._on_store_health(why)
