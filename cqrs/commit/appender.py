"""Decides a batch of commands and writes it: ahead of the lock on the log's head if it can, under it if it must.

A batch is decided in memory while nobody is kept waiting, on the head and the states that this process saw last. If
the head turns out to be another under the lock, somebody else has appended: what they touched is loaded anew, and the
batch is decided again there. A process that has found a rival's events decides its next batch under the lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from cqrs import failpoints
from cqrs.commit.aggregates import AggregateCache, AggregateState, LoadedAggregate
from cqrs.commit.command import Command
from cqrs.commit.metrics import CommitMetrics
from cqrs.commit.plan import Plan, Planner
from cqrs.errors import HistoryDiverged
from cqrs.records import LogHead
from cqrs.serving.logging import get_logger
from cqrs.snapshots.loader import AggregateLoader
from cqrs.store.port import AggregateReader, AppendTransaction, CommitUncertain, EventStore, StoreError

_log = get_logger(__name__)

_RESOLVE_TRIES = 10
_RESOLVE_PAUSE_SECONDS = 0.5

_CHANGES_LOOKED_AT = 10_000
"""If others have appended more than this, all states are loaded anew rather than those that they changed."""

_MEND = (
    "events that this server has acknowledged are lost, as after a fail-over to a standby that lagged or a restore "
    "beside running servers. Bring them back if you can (the old primary, a backup); else `orderstream log fork` "
    "records the loss, and the server goes on"
)


class CommitHadNoEffect(StoreError):
    """COMMIT was not answered, and turned out not to have happened. The store works: it has just told so."""


class Appender:
    """Belongs to the committer, which never uses it from two threads at once."""

    def __init__(
        self,
        store: EventStore,
        cache: AggregateCache,
        loader: AggregateLoader,
        planner: Planner,
        metrics: CommitMetrics,
    ) -> None:
        """Append to `store`, with states from `cache` and else from `loader`."""
        self._store = store
        self._cache = cache
        self._loader = loader
        self._planner = planner
        self._metrics = metrics
        self._head: LogHead | None = None
        """The newest head that this process knows to be durable. Never forgotten: a log must have what it once had."""
        self._under_lock = True
        """Whether to decide the next batch under the lock: the head may have moved."""

    @property
    def cached_aggregates(self) -> int:
        """How many aggregates are in memory."""
        return len(self._cache)

    def decide_ahead(self, commands: Sequence[Command]) -> Plan | None:
        """Decide the batch if everything for it is in memory; else `execute` does. Blocks on nothing."""
        if self._under_lock or self._head is None:
            return None
        states, missing = self._known(commands)
        return None if missing else self._planner.plan(self._head, commands, states, {}, _now_micros())

    def execute(self, commands: Sequence[Command], plan: Plan | None, on_doubt: Callable[[], None]) -> Plan:
        """Commit the batch, and return what was committed. Blocks on the store.

        Args:
            commands: the batch.
            plan: what `decide_ahead` has made of it.
            on_doubt: called if a COMMIT is not answered, before its outcome is looked up, which may take a minute.

        Raises:
            CommitHadNoEffect: COMMIT failed, nothing took effect, and the store works again.
            StoreError: the store failed, and nothing took effect.
            CommitUncertain: the store failed, and what took effect could not be found out.
            HistoryDiverged: the log lacks what it had.
        """
        if plan is None and self._head is not None:
            # Loading may take long: not while others wait for the lock. What they change meanwhile is loaded again.
            states = self._load(self._store, commands)
            if not self._under_lock:
                plan = self._planner.plan(self._head, commands, states, {}, _now_micros())
        try:
            with self._store.begin_append() as transaction:
                moved = transaction.head != self._head
                self._under_lock = moved and self._head is not None
                if moved:
                    self._take_in(transaction)
                request_ids = [command.request_id for command in commands if command.request_id is not None]
                stored = transaction.find_results(request_ids) if request_ids else {}
                if plan is None or moved or stored:
                    if plan is not None:
                        self._metrics.replanned.inc()
                    states = self._load(transaction, commands)
                    plan = self._planner.plan(transaction.head, commands, states, stored, _now_micros())
                if plan.writes:
                    transaction.append(plan.events, plan.results, plan.head)
                    transaction.commit()
        except CommitUncertain as error:
            if plan is None:
                raise
            on_doubt()
            effect = self._took_effect(plan)
            if effect is None:
                raise
            if not effect:
                raise CommitHadNoEffect("COMMIT failed, and did not take effect") from error
        failpoints.reach("committer.before_answer")
        return plan

    def accept(self, plan: Plan) -> None:
        """The plan is durable: remember its head and its states."""
        self._head = plan.head
        self._remember(plan.states)

    def forget(self) -> None:
        """Something went wrong: nothing that is in memory can be relied on any more."""
        self._cache.clear()
        self._under_lock = True

    def probe(self) -> None:
        """Make sure that the head can be locked, and that the log has what it had.

        Raises:
            StoreError: the store does not work.
            HistoryDiverged: the log lacks what it had.
        """
        with self._store.begin_append() as transaction:
            if transaction.head != self._head:
                self._check(transaction)

    def _known(self, commands: Sequence[Command]) -> tuple[dict[str, AggregateState], list[str]]:
        """The states that are in memory, and the ids of those that must be loaded."""
        states: dict[str, AggregateState] = {}
        missing: list[str] = []
        for command in commands:
            for id_ in (command.aggregate_id, *(reference_id for _, reference_id in command.references)):
                if id_ not in states:
                    cached = states[id_] = self._cache.get(id_)
                    if cached is None and not (command.is_new and id_ == command.aggregate_id):
                        missing.append(id_)
        return states, missing

    def _load(self, reader: AggregateReader, commands: Sequence[Command]) -> Mapping[str, AggregateState]:
        states, missing = self._known(commands)
        if missing:
            loaded = self._loader.load(reader, missing)
            states.update(loaded)
            # They may be newer than the head that is known here; then it has moved, and they are forgotten again.
            self._remember(loaded)
        return states

    def _remember(self, states: Mapping[str, AggregateState]) -> None:
        for aggregate_id, state in states.items():
            if isinstance(state, LoadedAggregate):
                self._cache.put(aggregate_id, state)

    def _take_in(self, transaction: AppendTransaction) -> None:
        """The head is not where this process saw it last: forget what others have changed.

        Raises:
            HistoryDiverged: see `_check`.
        """
        seen, head = self._head, transaction.head
        self._check(transaction)
        if seen is None or head.epoch != seen.epoch or head.position - seen.position > _CHANGES_LOOKED_AT:
            self._cache.clear()
        else:
            self._cache.evict(transaction.aggregates_after(seen.position))
        self._head = head

    def _check(self, transaction: AppendTransaction) -> None:
        """Make sure that the log still has the last event that this process knows to be durable (invariant 6).

        Raises:
            HistoryDiverged: it has not, and no operator has recorded that it lost it.
        """
        seen, head = self._head, transaction.head
        if seen is None:
            return
        if head.epoch != seen.epoch:
            _log.warning("the log is of another epoch than before", epoch=head.epoch, position=head.position)
            return
        if seen.position == 0:
            return
        found = transaction.event_at(seen.position)
        if found is None or found.hash != seen.hash:
            what = "no" if found is None else "another"
            raise HistoryDiverged(
                f"the log ends at position {head.position} and has {what} event at position {seen.position}, where "
                "this server has seen its end",
                _MEND,
            )

    def _took_effect(self, plan: Plan) -> bool | None:
        """Whether a COMMIT whose reply was lost happened: ask under the lock, when its transaction must have ended.

        None: the write DB could not be asked.
        """
        for attempt in range(1, _RESOLVE_TRIES + 1):
            try:
                with self._store.begin_append() as transaction:
                    if plan.events:
                        event = transaction.event_at(plan.head.position)
                        found = event is not None and event.event_id == plan.events[-1].event_id
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


def _now_micros() -> int:
    return time.time_ns() // 1000
