"""What an event store is. Implementations: `sql.py` (the real one), `memory.py` (for tests of what lies above).

All methods are synchronous and may block: call them on a thread of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from cqrs.errors import OrderstreamError
from cqrs.records import EventRecord, LogHead
from cqrs.snapshots.snapshot import Bound, Candidate, Outlook, Snapshot

ENVELOPE_BYTES = 512
"""What an event takes on the wire beside its data, about: ids, metadata, hash."""


class StoredResult(NamedTuple):
    """The outcome of a command that had a request id: a row of `command_results`."""

    request_id: str
    fingerprint: bytes
    """SHA-256 of method and request."""
    response: bytes
    """The response, serialised."""
    record_time: int
    """Microseconds since 1970; the outcome is kept for some days from here."""


class CommitUncertain(OrderstreamError):
    """COMMIT failed in a way that leaves open whether it took effect."""


class StoreError(OrderstreamError):
    """The database cannot be reached, or refused a statement. Nothing of the transaction took effect."""


class WriteRefused(StoreError):
    """The database works, and refused what was to be written: another attempt would be refused as well."""


class AggregateReader(Protocol):
    """What loading aggregates needs: see cqrs/snapshots/loader.py."""

    def read_outlook(self, aggregate_ids: Sequence[str], fingerprints: Sequence[bytes]) -> dict[str, Outlook]:
        """Newest version of each of these aggregates, and its newest snapshot that has one of these fingerprints.

        Those without events are left out.
        """
        ...

    def read_tails(self, versions: Mapping[str, range]) -> list[EventRecord]:
        """The events of these aggregates that have these versions: those of one together, and in version order.

        The caller sees to it that they are not too many.
        """
        ...

    def read_aggregate(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None = None
    ) -> list[EventRecord]:
        """At most `limit` events of one aggregate from a version on, in version order.

        With `max_bytes`, no more than that with their envelopes, but at least one event if there is any.
        """
        ...

    def read_snapshot(self, aggregate_id: str, bound: Bound, fingerprints: Sequence[bytes]) -> Candidate | None:
        """The newest snapshot of an aggregate at or before `bound` that has one of these fingerprints."""
        ...


class AppendTransaction(AggregateReader, Protocol):
    """A transaction that holds the lock on the log's head, and so is the only one that can append."""

    @property
    def head(self) -> LogHead:
        """The head, read under the lock."""
        ...

    def find_results(self, request_ids: Sequence[str]) -> dict[str, StoredResult]:
        """The stored outcomes of these request ids."""
        ...

    def event_at(self, position: int) -> EventRecord | None:
        """The event at a position, or None past the head."""
        ...

    def aggregates_after(self, position: int) -> Iterable[str]:
        """The aggregates that have events behind a position."""
        ...

    def append(self, events: Sequence[EventRecord], results: Sequence[StoredResult], head: LogHead) -> None:
        """Write events, outcomes and the new head. `events` continue the old head without a gap.

        Raises:
            WriteRefused: a version or a request id is taken, or a value cannot be stored.
        """
        ...

    def commit(self) -> None:
        """Make it durable. Leaving the context without it rolls back.

        Raises:
            CommitUncertain: it may have taken effect, or not.
        """
        ...


class EventReader(AggregateReader, Protocol):
    """The reading side: any thread, each call one read-only transaction."""

    def read_head(self) -> LogHead:
        """The head of the log."""
        ...

    def read_log(self, from_position: int, limit: int, max_bytes: int | None = None) -> list[EventRecord]:
        """At most `limit` events from a position on, in position order.

        With `max_bytes`, no more than that with their envelopes, but at least one event if there is any.
        """
        ...


class SnapshotStore(Protocol):
    """Where snapshots are kept. All of them can be lost at any time: they are made again."""

    @property
    def writes_snapshots_beside_commits(self) -> bool:
        """Whether `write_snapshots` may be called while another thread appends; else only on that thread."""
        ...

    def write_snapshots(self, new: Sequence[Snapshot], keep: int) -> None:
        """Keep these, and with their fingerprints `keep` in all of each of their aggregates, the newest among them.

        Deletes what cqrs/snapshots/thinning.py says, as those that are not of this log.

        Raises:
            StoreError: the database cannot be reached, or refused a statement.
        """
        ...

    def drop_snapshots(self, aggregate_type: str | None, limit: int) -> int:
        """Delete at most `limit` snapshots, of one type or of all; returns how many. Called as `write_snapshots` is."""
        ...

    def count_snapshots(self) -> int:
        """How many there are. Any thread."""
        ...


class EventStore(EventReader, SnapshotStore, Protocol):
    """Reading and appending. Appending is for one thread at a time."""

    def begin_append(self) -> AbstractContextManager[AppendTransaction]:
        """Lock the head and open a transaction; on a fresh connection if the last one failed.

        Raises:
            StoreError: the database cannot be reached.
        """
        ...

    def prune_results(self, before: int, limit: int) -> int:
        """Delete at most `limit` outcomes recorded before `before` (microseconds since 1970); returns how many."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


def within_bytes(events: Iterable[EventRecord], max_bytes: int | None) -> list[EventRecord]:
    """The longest beginning of `events` with at most `max_bytes`, but at least one. Looks no further than that."""
    if max_bytes is None:
        return list(events)
    found: list[EventRecord] = []
    total = 0
    for event in events:
        total += len(event.data) + ENVELOPE_BYTES
        if total > max_bytes and found:
            break
        found.append(event)
    return found
