"""An event store in memory, with the same guarantees but durability. It passes the contract suite of the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import uuid4

from cqrs.records import GENESIS_HASH, EventRecord, LogHead
from cqrs.snapshots.snapshot import Bound, Candidate, Outlook, Snapshot
from cqrs.snapshots.thinning import Held, to_delete
from cqrs.store.memory_queries import MemoryQueries
from cqrs.store.port import StoredResult, WriteRefused, within_bytes


class MemoryEventStore(MemoryQueries):
    """A log in a list."""

    def __init__(self) -> None:
        super().__init__(LogHead(0, GENESIS_HASH, str(uuid4()), 0))
        self._lock = threading.Lock()
        self._snapshots: dict[tuple[str, int, bytes], Snapshot] = {}

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

    def read_outlook(self, aggregate_ids: Sequence[str], fingerprints: Sequence[bytes]) -> dict[str, Outlook]:
        """See AggregateReader."""
        wanted = set(aggregate_ids)
        newest = {event.aggregate_id: event.version for event in self._events if event.aggregate_id in wanted}
        return {
            aggregate_id: Outlook(
                version, self._newest_snapshot(aggregate_id, lambda found: found.fingerprint in fingerprints)
            )
            for aggregate_id, version in newest.items()
        }

    def read_tails(self, versions: Mapping[str, range]) -> list[EventRecord]:
        """See AggregateReader."""
        found = (event for event in self._events if event.version in versions.get(event.aggregate_id, ()))
        return sorted(found, key=lambda event: (event.aggregate_id, event.version))

    def read_snapshot(self, aggregate_id: str, bound: Bound, fingerprints: Sequence[bytes]) -> Candidate | None:
        """See AggregateReader."""
        return self._newest_snapshot(
            aggregate_id,
            lambda found: (
                found.version <= bound.version
                and found.position <= bound.position
                and found.record_time <= bound.record_time
                and found.fingerprint in fingerprints
            ),
        )

    @property
    def writes_snapshots_beside_commits(self) -> bool:
        """See SnapshotStore."""
        return True

    def write_snapshots(self, new: Sequence[Snapshot], keep: int) -> None:
        """See SnapshotStore."""
        with self._lock:
            for snapshot in new:
                self._snapshots[snapshot.aggregate_id, snapshot.version, snapshot.fingerprint] = snapshot
            for aggregate_id, fingerprint in {each.aggregate_id: each.fingerprint for each in new}.items():
                of_one = [each for key, each in self._snapshots.items() if key[0] == aggregate_id]
                held = [Held(each.fingerprint, each.version, self._is_in_log(each)) for each in of_one]
                for doomed in to_delete(held, fingerprint, keep):
                    del self._snapshots[aggregate_id, doomed.version, doomed.fingerprint]

    def drop_snapshots(self, aggregate_type: str | None, limit: int) -> int:
        """See SnapshotStore."""
        with self._lock:
            of_type = [key for key, found in self._snapshots.items() if aggregate_type in (None, found.aggregate_type)]
            for key in of_type[:limit]:
                del self._snapshots[key]
            return len(of_type[:limit])

    def count_snapshots(self) -> int:
        """See SnapshotStore."""
        return len(self._snapshots)

    def _newest_snapshot(self, aggregate_id: str, chosen: Callable[[Snapshot], bool]) -> Candidate | None:
        found = [each for key, each in list(self._snapshots.items()) if key[0] == aggregate_id and chosen(each)]
        return self._with_event(max(found, key=lambda each: each.version)) if found else None

    def _is_in_log(self, snapshot: Snapshot) -> bool:
        return self._with_event(snapshot).hash == snapshot.hash

    def _with_event(self, snapshot: Snapshot) -> Candidate:
        for event in self.read_aggregate(snapshot.aggregate_id, snapshot.version, 1):
            if event.version == snapshot.version:
                return Candidate(snapshot, event.position, event.hash)
        return Candidate(snapshot, None, None)

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
        """What the commit of a transaction does: all of it, or WriteRefused and nothing."""
        versions = {(event.aggregate_id, event.version) for event in self._events}
        for offset, event in enumerate(events, start=self._head.position + 1):
            if event.position != offset or (event.aggregate_id, event.version) in versions:
                raise WriteRefused(f"event {event.position} does not continue the log or its aggregate")
            versions.add((event.aggregate_id, event.version))
        if any(result.request_id in self._results for result in results):
            raise WriteRefused("a request id has an outcome already")
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

    def read_outlook(self, aggregate_ids: Sequence[str], fingerprints: Sequence[bytes]) -> dict[str, Outlook]:
        return self._store.read_outlook(aggregate_ids, fingerprints)

    def read_tails(self, versions: Mapping[str, range]) -> list[EventRecord]:
        return self._store.read_tails(versions)

    def read_aggregate(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None = None
    ) -> list[EventRecord]:
        return self._store.read_aggregate(aggregate_id, from_version, limit, max_bytes)

    def read_snapshot(self, aggregate_id: str, bound: Bound, fingerprints: Sequence[bytes]) -> Candidate | None:
        return self._store.read_snapshot(aggregate_id, bound, fingerprints)

    def event_at(self, position: int) -> EventRecord | None:
        found = self._store.read_log(position, 1)
        return found[0] if found and found[0].position == position else None

    def aggregates_after(self, position: int) -> set[str]:
        return {event.aggregate_id for event in self._store.read_log(position + 1, self._store.read_head().position)}

    def append(self, events: Sequence[EventRecord], results: Sequence[StoredResult], head: LogHead) -> None:
        self._pending = (events, results, head)

    def commit(self) -> None:
        if self._pending is not None:
            self._store.apply(*self._pending)
