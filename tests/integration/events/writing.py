"""Logs with events of any kind, written straight into an event store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cqrs.ids import new_id
from cqrs.records import EventRecord, LogHead, chain_hash
from cqrs.store.port import EventStore, StoredResult

START = 1_700_000_000_000_000


class Draft(NamedTuple):
    """An event to be: what matters of it to readers."""

    aggregate_id: str = "a"
    aggregate_type: str = "thing"
    event_type: str = "example.v1.ThingHappened"
    record_time: int | None = None
    """None: a microsecond after the event before."""
    event_id: str | None = None
    request_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    data: bytes = b"x"


class LogWriter:
    """Appends drafts to a store; knows the versions that it has given."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.events: list[EventRecord] = []
        self._versions: dict[str, int] = {}

    def write(self, *drafts: Draft, results: Sequence[StoredResult] = ()) -> list[EventRecord]:
        """Append, in one transaction."""
        with self.store.begin_append() as transaction:
            head = transaction.head
            written = []
            for draft in drafts:
                version = self._versions[draft.aggregate_id] = self._versions.get(draft.aggregate_id, 0) + 1
                time = max(head.record_time or START, START) + 1 if draft.record_time is None else draft.record_time
                event = EventRecord(
                    position=head.position + 1,
                    event_id=draft.event_id or new_id(),
                    aggregate_type=draft.aggregate_type,
                    aggregate_id=draft.aggregate_id,
                    version=version,
                    event_type=draft.event_type,
                    record_time=time,
                    request_id=draft.request_id,
                    correlation_id=draft.correlation_id,
                    causation_id=draft.causation_id,
                    actor=None,
                    traceparent=None,
                    data=draft.data,
                    hash=b"",
                )
                event = event._replace(hash=chain_hash(head.hash, event))
                head = LogHead(event.position, event.hash, head.epoch, event.record_time)
                written.append(event)
            transaction.append(written, results, head)
            transaction.commit()
        self.events += written
        return written

    def write_many(self, count: int, data: bytes = b"x") -> list[EventRecord]:
        """Append `count` events of ten aggregates."""
        return self.write(*(Draft(f"a-{number % 10}", data=data) for number in range(count)))


def result_at(request_id: str, record_time: int) -> StoredResult:
    """The outcome of a command."""
    return StoredResult(request_id, b"f" * 32, b"response", record_time)
