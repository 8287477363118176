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

from cqrs import failpoints
from cqrs.commit.aggregates import AggregateCache, AggregateState, LoadedAggregate
from cqrs.commit.command import Command, Outcome, Submission
from cqrs.commit.metrics import CommitMetrics
from cqrs.commit.plan import Plan, Planner
from cqrs.commit.queue import CommandQueue, CommitLimits, PendingCommand
from cqrs.errors import StoreUnavailable, detach
from cqrs.records import EventRecord, LogHead
from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal
from cqrs.store.port import CommitUncertain, EventStore, StoreError

_T = TypeVar("_T")

_log = get_logger(__name__)

_RESOLVE_TRIES = 10
_RESOLVE_PAUSE_SECONDS = 0.5
_PROBE_SECONDS = 1.0


class Committer:
    """One per process: the only thing that appends to the log."""

    def __init__(
        self,
        store: EventStore,
        aggregates: AggregateCache,
        planner: Planner,
        metrics: CommitMetrics,
        *,
        limits: CommitLimits,
        on_commit: Callable[[Sequence[EventRecord]], None],
        on_store_health: Callable[[str | None], None],
    ) -> None:
        """Build it; `run` makes it work.

        Args:
            store: where to append.
            aggregates: the cache of states; nobody else may use it.
            planner: decides.
            metrics: what operators see.
            limits: bounds on queue and batches.
            on_commit: told the events of each commit that wrote any, once they are durable.
            on_store_health: told why the store does not work, or None when it does.
        """
        self._store = store
        self._aggregates = aggregates
        self._planner = planner
        self._metrics = metrics
        self._on_commit = on_commit
        self._on_store_health = on_store_health
        self._queue = CommandQueue(limits, metrics)
        self._head: LogHead | None = None
        self._unhealthy = False
        self._loop: asyncio.AbstractEventLoop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="committer")

    async def submit(self, submission: Submission) -> Outcome:
        """Execute a command; returns once its events are durable.

        Cancelling the caller drops the command if it is not decided yet, and never cancels a commit.

        Raises:
            InvalidRequest: the request is malformed.
            Overloaded: too much waits; the command was not taken.
            ShuttingDown: the server drains; the command was not taken.
            DeadlinePassed: its deadline passed before it was decided; nothing was done.
            StoreUnavailable: the write DB failed.
            ServiceError: version conflict, request id reused and the like.
            Exception: whatever the decision raised.
        """
        return await self._queue.put(submission)

    async def run(self) -> None:
        """Commit batch after batch until `close`; then what still waits is committed and this returns."""
        while (batch := await self._queue.take()) is not None:
            if batch:
                await self._process(batch)

    async def watch_store(self, stop: StopSignal) -> None:
        """Until `stop`: when the store has failed, try every second whether it works again.

        Without this a server that its health takes out of service would never get the command that proves it well.
        """
        while not await stop.wait_for(_PROBE_SECONDS):
            if self._unhealthy:
                try:
                    await self.on_writer_thread(self._probe)
                except (StoreError, CommitUncertain) as error:
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

    async def _process(self, batch: list[PendingCommand]) -> None:
        commands = [pending.command for pending in batch]
        started = time.perf_counter()
        try:
            plan = await self._commit(commands)
        except (StoreError, CommitUncertain) as error:
            self._fail(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - logged here, and answered to all who wait
            # Whether it was committed is not known here, so nothing is tried again: a request id makes a repeat safe.
            _log.exception("batch failed by a defect", commands=len(batch))
            self._forget()
            detach(error)
            for pending in batch:
                pending.answer(error)
            return
        self._accept(plan)
        for pending, outcome in zip(batch, plan.outcomes, strict=True):
            pending.answer(outcome)
        metrics = self._metrics
        metrics.commit_seconds.observe(time.perf_counter() - started)
        metrics.batch_commands.observe(len(batch))
        metrics.events.inc(len(plan.events))
        metrics.replayed.inc(sum(isinstance(outcome, Outcome) and outcome.replayed for outcome in plan.outcomes))
        metrics.cached_aggregates.set(len(self._aggregates))
        metrics.head_position.set(plan.head.position)

    async def _commit(self, commands: Sequence[Command]) -> Plan:
        head = self._head
        if head is None:
            head = await self.on_writer_thread(self._store.read_head)
        states = await self._states(commands)
        plan = self._planner.plan(head, commands, states, {}, _now_micros())
        self._loop = asyncio.get_running_loop()
        return await self.on_writer_thread(lambda: self._execute(commands, states, plan))

    async def _states(self, commands: Sequence[Command]) -> dict[str, AggregateState]:
        """The states that the commands need: from memory, the others by one SELECT."""
        states: dict[str, AggregateState] = {}
        missing: list[str] = []
        for command in commands:
            for id_ in (command.aggregate_id, *(reference_id for _, reference_id in command.references)):
                if id_ not in states:
                    cached = self._aggregates.get(id_)
                    states[id_] = cached
                    if cached is None and not (command.is_new and id_ == command.aggregate_id):
                        missing.append(id_)
        if missing:
            loaded = await self.on_writer_thread(lambda: self._store.load(missing))
            states.update(self._fold(loaded))
        return states

    def _execute(self, commands: Sequence[Command], states: Mapping[str, AggregateState], plan: Plan) -> Plan:
        """Commit the plan, on the writer's thread. Decides again if the log is not what the plan was made for."""
        try:
            with self._store.begin_append() as transaction:
                head = transaction.head
                request_ids = [command.request_id for command in commands if command.request_id is not None]
                stored = transaction.find_results(request_ids) if request_ids else {}
                if head != plan.base:
                    states = self._fold(transaction.load(list(states)))
                    self._aggregates.clear()
                if stored or head != plan.base:
                    self._metrics.replanned.inc()
                    plan = self._planner.plan(head, commands, states, stored, _now_micros())
                if plan.writes:
                    transaction.append(plan.events, plan.results, plan.head)
                    transaction.commit()
        except CommitUncertain as error:
            self._loop.call_soon_threadsafe(self._not_healthy, "a COMMIT has not been answered")
            effect = self._took_effect(plan)
            if effect is None:
                raise
            if not effect:
                raise StoreError("COMMIT failed, and did not take effect") from error
        failpoints.reach("committer.before_answer")
        return plan

    def _probe(self) -> None:
        with self._store.begin_append():
            pass  # the head could be locked, and is let go again

    def _took_effect(self, plan: Plan) -> bool | None:
        """Whether a COMMIT whose reply was lost happened: ask under the lock, when its transaction must have ended.

        None: the write DB could not be asked.
        """
        for attempt in range(1, _RESOLVE_TRIES + 1):
            try:
                with self._store.begin_append() as transaction:
                    if plan.events:
                        found = transaction.event_id_at(plan.head.position) == plan.events[-1].event_id
                    else:
                        last = plan.results[-1]
                        found = transaction.find_results([last.request_id]).get(last.request_id) == last
                _log.warning("a COMMIT without a reply was looked up", took_effect=found, position=plan.head.position)
                return found
            except StoreError as error:
                _log.error("cannot look up a COMMIT without a reply", attempt=attempt, error=str(error))
                if attempt < _RESOLVE_TRIES:
                    time.sleep(_RESOLVE_PAUSE_SECONDS)
        return None

    def _fold(self, loaded: Mapping[str, list[EventRecord]]) -> dict[str, AggregateState]:
        return {aggregate_id: self._aggregates.fold(events) for aggregate_id, events in loaded.items()}

    def _accept(self, plan: Plan) -> None:
        """The plan is durable: its states are now the current ones."""
        self._head = plan.head
        for aggregate_id, state in plan.states.items():
            if isinstance(state, LoadedAggregate):
                self._aggregates.put(aggregate_id, state)
        self._healthy()
        if plan.events:
            self._on_commit(plan.events)

    def _healthy(self) -> None:
        self._unhealthy = False
        self._on_store_health(None)

    def _not_healthy(self, why: str) -> None:
        self._unhealthy = True
        self._on_store_health(why)

    def _forget(self) -> None:
        self._head = None
        self._aggregates.clear()

    def _fail(self, batch: Sequence[PendingCommand], error: Exception) -> None:
        """The write DB failed: nothing that is in memory can be relied on, and everybody in the batch is told."""
        self._forget()
        self._metrics.store_errors.inc()
        self._not_healthy(str(error))
        _log.error("the write DB failed", commands=len(batch), error=str(error), cause=repr(error.__cause__))
        unknown = isinstance(error, CommitUncertain)
        for pending in batch:
            text = (
                "the outcome is unknown: repeat the command with its request id"
                if unknown
                else "nothing was done: retry"
            )
            pending.answer(StoreUnavailable(f"the write DB is not available; {text}"))


def _now_micros() -> int:
    return time.time_ns() // 1000
