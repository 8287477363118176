"""An event store in memory, with the same guarantees but durability. It passes the contract suite of the real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

from cqrs.records import GENESIS_HASH, EventRecord, LogHead
from cqrs.store.port import StoredResult, StoreError, group_by_aggregate, within_bytes


class MemoryEventStore:
    """A log in a list."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[EventRecord] = []
        self._results: dict[str, StoredResult] = {}
        self._head = LogHead(0, GENESIS_HASH, str(uuid4()), 0)

    def read_head(self) -> LogHead:
        """See EventReader."""
        return self._head

    def read_log(self, from_position: int, limit: int, max_bytes: int | None = None) -> list[EventRecord]:
        """See EventReader."""
        return within_bytes(self._events[max(0, from_position - 1) :][:limit], max_bytes)

    def read_aggregate(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None = None
    ) -> list[EventRecord]:
        """See EventReader."""
        found = (event for event in self._events if event.aggregate_id == aggregate_id)
        return within_bytes([event for event in found if event.version >= from_version][:limit], max_bytes)

    def load(self, aggregate_ids: Sequence[str]) -> dict[str, list[EventRecord]]:
        """See EventReader."""
        wanted = set(aggregate_ids)
        return group_by_aggregate(aggregate_ids, (event for event in self._events if event.aggregate_id in wanted))

    @contextmanager
    def begin_append(self) -> Iterator[_MemoryTransaction]:
        """See EventStore."""
        with self._lock:
            yield _MemoryTransaction(self)

    def prune_results(self, before: int, limit: int) -> int:
        """See EventStore."""
        with self._lock:
            old = [result.request_id for result in self._results.values() if result.record_time < before][:limit]
            for request_id in old:
                del self._results[request_id]
            return len(old)

    def close(self) -> None:
        """See EventStore."""

    def find_results(self, request_ids: Sequence[str]) -> dict[str, StoredResult]:
        """See AppendTransaction."""
        return {key: self._results[key] for key in request_ids if key in self._results}

    def apply(self, events: Sequence[EventRecord], results: Sequence[StoredResult], head: LogHead) -> None:
        """What the commit of a transaction does: all of it, or StoreError and nothing."""
        versions = {(event.aggregate_id, event.version) for event in self._events}
        for offset, event in enumerate(events, start=self._head.position + 1):
            if event.position != offset or (event.aggregate_id, event.version) in versions:
                raise StoreError(f"event {event.position} does not continue the log or its aggregate")
            versions.add((event.aggregate_id, event.version))
        if any(result.request_id in self._results for result in results):
            raise StoreError("a request id has an outcome already")
        self._events.extend(events)
        self._results.update({result.request_id: result for result in results})
        self._head = head


class _MemoryTransaction:
    def __init__(self, store: MemoryEventStore) -> None:
        self._store = store
        self._pending: tuple[Sequence[EventRecord], Sequence[StoredResult], LogHead] | None = None

    @property
    def head(self) -> LogHead:
        return self._store.read_head()

    def find_results(self, request_ids: Sequence[str]) -> dict[str, StoredResult]:
        return self._store.find_results(request_ids)

    def load(self, aggregate_ids: Sequence[str]) -> dict[str, list[EventRecord]]:
        return self._store.load(aggregate_ids)

    def event_id_at(self, position: int) -> str | None:
        found = self._store.read_log(position, 1)
        return found[0].event_id if found else None

    def append(self, events: Sequence[EventRecord], results: Sequence[StoredResult], head: LogHead) -> None:
        self._pending = (events, results, head)

    def commit(self) -> None:
        if self._pending is not None:
            self._store.apply(*self._pending)
