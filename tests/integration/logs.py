"""Logs for tests: events without a meaning, and write DBs in temporary folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.records import EventRecord, LogHead, chain_hash
from cqrs.store.port import EventStore
from cqrs.store.schema import WRITE_SCHEMA

START = 1_700_000_000_000_000


def new_write_db(folder: Path) -> str:
    """The URL of a fresh write DB."""
    url = f"sqlite:///{folder / 'write.db'}"
    engine = open_engine(url, access="write", durable=True)
    upgrade_schema(engine, WRITE_SCHEMA)
    engine.dispose()
    return url


def events_after(head: LogHead, aggregates: Sequence[tuple[str, int]], data: bytes = b"x") -> list[EventRecord]:
    """One event for each (aggregate id, version), chained from `head`."""
    previous, events = head.hash, []
    for offset, (aggregate_id, version) in enumerate(aggregates, start=1):
        position = head.position + offset
        event = EventRecord(
            position=position,
            event_id=f"event-{position}",
            aggregate_type="thing",
            aggregate_id=aggregate_id,
            version=version,
            event_type="example.v1.ThingHappened",
            record_time=START + position,
            request_id=f"request-{position}" if position % 2 else None,
            correlation_id=None,
            causation_id=None,
            actor="ada",
            traceparent=None,
            data=data,
            hash=b"",
        )
        previous = chain_hash(previous, event)
        events.append(event._replace(hash=previous))
    return events


def head_of(events: Sequence[EventRecord], epoch: str) -> LogHead:
    """The head of a log that ends with these events."""
    last = events[-1]
    return LogHead(last.position, last.hash, epoch, last.record_time)


def append(store: EventStore, aggregates: Sequence[tuple[str, int]], data: bytes = b"x") -> list[EventRecord]:
    """Append one event for each (aggregate id, version), in one transaction."""
    with store.begin_append() as transaction:
        events = events_after(transaction.head, aggregates, data)
        transaction.append(events, [], head_of(events, transaction.head.epoch))
        transaction.commit()
    return events


def assert_one_gapless_chain(events: Sequence[EventRecord]) -> None:
    """Positions 1..N, versions 1..n for each aggregate, an unbroken chain, record times that never run backwards."""
    previous, time, versions = bytes(32), 0, dict[str, int]()
    for position, event in enumerate(events, start=1):
        assert event.position == position
        assert event.version == versions.get(event.aggregate_id, 0) + 1
        assert event.hash == chain_hash(previous, event)
        assert event.record_time >= time
        previous, time = event.hash, event.record_time
        versions[event.aggregate_id] = event.version
