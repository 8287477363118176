"""What an event store is. Implementations: `sql.py` (the real one), `memory.py` (for tests of what lies above).

All methods are synchronous and may block: call them on a thread of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from cqrs.errors import OrderstreamError
from cqrs.records import EventRecord, LogHead

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


class AppendTransaction(Protocol):
    """A transaction that holds the lock on the log's head, and so is the only one that can append."""

    @property
    def head(self) -> LogHead:
        """The head, read under the lock."""
        ...

    def find_results(self, request_ids: Sequence[str]) -> dict[str, StoredResult]:
        """The stored outcomes of these request ids."""
        ...

    def load(self, aggregate_ids: Sequence[str]) -> dict[str, list[EventRecord]]:
        """The events of these aggregates, in version order; an id without events has an empty list."""
        ...

    def event_id_at(self, position: int) -> str | None:
        """The id of the event at a position, or None past the head."""
        ...

    def append(self, events: Sequence[EventRecord], results: Sequence[StoredResult], head: LogHead) -> None:
        """Write events, outcomes and the new head. `events` continue the old head without a gap."""
        ...

    def commit(self) -> None:
        """Make it durable. Leaving the context without it rolls back.

        Raises:
            CommitUncertain: it may have taken effect, or not.
        """
        ...


class EventReader(Protocol):
    """The reading side: any thread, each call one read-only transaction."""

    def read_head(self) -> LogHead:
        """The head of the log."""
        ...

    def read_log(self, from_position: int, limit: int, max_bytes: int | None = None) -> list[EventRecord]:
        """At most `limit` events from a position on, in position order.

        With `max_bytes`, no more than that with their envelopes, but at least one event if there is any.
        """
        ...

    def read_aggregate(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None = None
    ) -> list[EventRecord]:
        """At most `limit` events of one aggregate from a version on, in version order; `max_bytes` as above."""
        ...

    def load(self, aggregate_ids: Sequence[str]) -> dict[str, list[EventRecord]]:
        """As AppendTransaction.load, without the lock."""
        ...


class EventStore(EventReader, Protocol):
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


def group_by_aggregate(aggregate_ids: Iterable[str], events: Iterable[EventRecord]) -> dict[str, list[EventRecord]]:
    """Events by aggregate id, in the order given; ids without events have an empty list."""
    groups: dict[str, list[EventRecord]] = {aggregate_id: [] for aggregate_id in aggregate_ids}
    for event in events:
        groups[event.aggregate_id].append(event)
    return groups


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
