"""Takes snapshots, off the path of commands: from a bounded queue, in small batches between those of the committer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from cqrs import failpoints
from cqrs.commit.aggregates import AggregateState, LoadedAggregate
from cqrs.records import EventRecord
from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import SnapshotRule
from cqrs.snapshots.snapshot import Capture, Snapshot, seal
from cqrs.store.port import CommitUncertain, SnapshotStore, StoreError

_log = get_logger(__name__)

QUEUE_LENGTH = 1000
"""Captures that may wait: each keeps a state in memory."""

_BATCH = 32
_PAUSE_SECONDS = 0.1
"""Between two batches, as each may sync the disk that commands wait for."""
_PAUSE_AFTER_FAILURE_SECONDS = 5.0

RunOnWriter = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs something on the thread that alone may write to the database."""


class SnapshotWriter:
    """One per process. A snapshot is never needed: what cannot be taken is counted, and forgotten."""

    def __init__(
        self,
        store: SnapshotStore,
        rules: Mapping[str, SnapshotRule],
        metrics: SnapshotMetrics,
        *,
        keep: int,
        queue_length: int = QUEUE_LENGTH,
    ) -> None:
        """Build it; `run` makes it work. To be built on the event loop.

        Args:
            store: where snapshots go.
            rules: how often to take them. Types without a rule have none.
            metrics: what operators see.
            keep: snapshots kept of one aggregate, at most.
            queue_length: captures that may wait; more are dropped.
        """
        self._store = store
        self._rules = rules
        self._metrics = metrics
        self._keep = keep
        self._queue_length = queue_length
        self._every = {name: rule.every_events for name, rule in rules.items()}
        self._waiting: dict[str, Capture] = {}
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")

    def committed(self, events: Sequence[EventRecord], states: Mapping[str, AggregateState]) -> None:
        """Take in what has come by a multiple of its type's `every_events`. On the event loop, once it is durable.

        Args:
            events: what was committed, in order.
            states: at least the aggregates of these events, as they are after them. Nobody may change them any more.
        """
        every = self._every
        due: set[str] | None = None
        for event in events:
            # Nearly always false, and asked of every event: nothing dearer may come before it.
            if event.aggregate_type in every and event.version % every[event.aggregate_type] == 0:
                due = due or set()
                due.add(event.aggregate_id)
        if due is None:
            return
        for event in reversed(events):
            if event.aggregate_id in due:
                due.remove(event.aggregate_id)
                state = states.get(event.aggregate_id)
                if isinstance(state, LoadedAggregate) and state.version == event.version:
                    self._take_in(_captured(event, state))

    def offer(self, capture: Capture) -> None:
        """Take in what it took many events to load. From any thread."""
        with suppress(RuntimeError):  # the loop is closed, as the server ends
            self._loop.call_soon_threadsafe(self._take_in, capture)

    async def run(self, run_on_writer: RunOnWriter, stop: StopSignal) -> None:
        """Write what comes until `stop`; what waits then is not written any more.

        On a database with one writing connection this goes through `run_on_writer`.
        """
        while not stop.is_set():
            batch = await self._next(stop)
            if batch:
                written = await self._write(batch, run_on_writer)
                await stop.wait_for(_PAUSE_SECONDS if written else _PAUSE_AFTER_FAILURE_SECONDS)

    def release(self) -> None:
        """Give the thread back, once `run` has ended."""
        self._thread.shutdown(wait=True)

    def _take_in(self, capture: Capture) -> None:
        waiting = self._waiting.get(capture.aggregate_id)
        if waiting is None and len(self._waiting) >= self._queue_length:
            self._metrics.dropped.inc()
            return
        if waiting is None or waiting.version < capture.version:
            self._waiting[capture.aggregate_id] = capture
            self._wake.set()

    async def _next(self, stop: StopSignal) -> list[Capture]:
        if not self._waiting:
            self._wake.clear()
            waking, stopping = asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait((waking, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waking.cancel()
                stopping.cancel()
        if stop.is_set():
            return []
        return [self._waiting.pop(aggregate_id) for aggregate_id in list(self._waiting)[:_BATCH]]

    async def _write(self, batch: Sequence[Capture], run_on_writer: RunOnWriter) -> bool:
        try:
            sealed = await self._loop.run_in_executor(self._thread, self._seal, batch)
            if self._store.writes_snapshots_beside_commits:
                await self._loop.run_in_executor(self._thread, self._store.write_snapshots, sealed, self._keep)
            else:
                await run_on_writer(lambda: self._store.write_snapshots(sealed, self._keep))
        except (StoreError, CommitUncertain) as error:
            self._metrics.failed.inc(len(batch))
            _log.warning("snapshots were not written", snapshots=len(batch), error=str(error))
            return False
        except Exception:  # noqa: BLE001 - logged here: a defect in what is only an optimisation stops nothing
            self._metrics.failed.inc(len(batch))
            _log.exception("snapshots were not written because of a defect", snapshots=len(batch))
            return False
        self._metrics.taken.inc(len(batch))
        return True

    def _seal(self, batch: Sequence[Capture]) -> list[Snapshot]:
        failpoints.reach("snapshots.before_write")
        return [seal(capture, self._rules[capture.aggregate_type].fingerprint) for capture in batch]


def _captured(event: EventRecord, state: LoadedAggregate) -> Capture:
    return Capture(
        event.aggregate_id,
        event.version,
        event.position,
        event.hash,
        event.aggregate_type,
        event.record_time,
        state.state,
    )
