"""Events as the log holds them, the log's head, and the hash chain that joins them.

The stored columns, their order and the form of `chain_hash` are for ever: the hashes in every log depend on them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Any as Untyped
from typing import NamedTuple

from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp

from orderstream.events.v1.event_pb2 import EventMetadata, RecordedEvent

GENESIS_HASH = bytes(32)
"""Stands for the hash of the event before the first."""

TYPE_URL_PREFIX = "type.googleapis.com/"

_MICROS_PER_SECOND = 1_000_000


class EventRecord(NamedTuple):
    """One event of the log: a row of the `events` table, column for column and in column order."""

    position: int
    """Place in the log: 1, 2, 3, … without a gap, in commit order."""
    event_id: str
    aggregate_type: str
    aggregate_id: str
    version: int
    """The aggregate's version after this event: 1, 2, 3, … without a gap."""
    event_type: str
    """Full name of the protobuf message in `data`."""
    record_time: int
    """Microseconds since 1970-01-01T00:00:00Z. Never runs backwards along the log."""
    request_id: str | None
    correlation_id: str | None
    causation_id: str | None
    actor: str | None
    traceparent: str | None
    data: bytes
    """The event message, serialised once when it was decided and never again."""
    hash: bytes
    """`chain_hash` of the previous event's hash and this event; 32 bytes."""


class LogHead(NamedTuple):
    """Where a log ends."""

    position: int
    """Position of the last event; 0 for an empty log."""
    hash: bytes
    """Hash of the last event; GENESIS_HASH for an empty log."""
    epoch: str
    """Which history this is: a UUID, made when the log is created and anew by a restore."""
    record_time: int
    """Record time of the last event in microseconds since 1970; 0 for an empty log."""


def chain_hash(previous_hash: bytes, columns: Sequence[Untyped]) -> bytes:
    """SHA-256 over `previous_hash` and an event's stored columns but `hash`: an EventRecord, or its first 13 columns.

    First the three numbers (8 bytes each) and the lengths of the ten other columns in bytes (4 bytes each, all ones for
    an absent one), big endian; then text as UTF-8 and `data` as stored; each group in column order. A column that is
    added later is to be appended with its number and length where it is present, so that no old hash changes. Linked
    like this by Haber and Stornetta, "How to time-stamp a digital document", 1991.
    """
    (
        position, event_id, aggregate_type, aggregate_id, version, event_type, record_time,
        request_id, correlation_id, causation_id, actor, traceparent, data,
    ) = columns[:_HASHED_COLUMNS]  # fmt: skip
    optional = (request_id, correlation_id, causation_id, actor, traceparent)
    text = (event_id, aggregate_type, aggregate_id, event_type, *filter(None, optional))
    encoded = "".join(text).encode()
    if len(encoded) == sum(map(len, text)):  # ASCII, as nearly all are: characters are bytes
        lengths = [
            len(event_id), len(aggregate_type), len(aggregate_id), len(event_type),
            *[_ABSENT if value is None else len(value) for value in optional],
        ]  # fmt: skip
    else:
        required = (event_id, aggregate_type, aggregate_id, event_type)
        lengths = [_ABSENT if value is None else len(value.encode()) for value in (*required, *optional)]
    header = _HASH_HEADER.pack(position, version, record_time, *lengths, len(data))
    return sha256(b"".join((previous_hash, header, encoded, data))).digest()


_HASHED_COLUMNS = 13
_HASH_HEADER = struct.Struct(">3Q10I")
_ABSENT = 0xFFFF_FFFF


def to_wire(event: EventRecord) -> RecordedEvent:
    """The event as the contract has it. `data` goes in as stored."""
    return RecordedEvent(
        event_id=event.event_id,
        aggregate_type=event.aggregate_type,
        aggregate_id=event.aggregate_id,
        version=event.version,
        position=event.position,
        event_type=event.event_type,
        record_time=to_timestamp(event.record_time),
        metadata=EventMetadata(
            request_id=event.request_id or "",
            correlation_id=event.correlation_id or "",
            causation_id=event.causation_id or "",
            actor=event.actor or "",
            traceparent=event.traceparent or "",
        ),
        data=Any(type_url=TYPE_URL_PREFIX + event.event_type, value=event.data),
        hash=event.hash,
    )


def from_wire(event: RecordedEvent) -> EventRecord:
    """The inverse of `to_wire`: `chain_hash` of the result is what it was at the log."""
    metadata = event.metadata
    return EventRecord(
        position=event.position,
        event_id=event.event_id,
        aggregate_type=event.aggregate_type,
        aggregate_id=event.aggregate_id,
        version=event.version,
        event_type=event.event_type,
        record_time=to_micros(event.record_time),
        request_id=metadata.request_id or None,
        correlation_id=metadata.correlation_id or None,
        causation_id=metadata.causation_id or None,
        actor=metadata.actor or None,
        traceparent=metadata.traceparent or None,
        data=event.data.value,
        hash=event.hash,
    )


def to_timestamp(micros: int) -> Timestamp:
    """A Timestamp from microseconds since 1970."""
    seconds, rest = divmod(micros, _MICROS_PER_SECOND)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def to_micros(timestamp: Timestamp) -> int:
    """Microseconds since 1970; what is finer is cut off."""
    return timestamp.seconds * _MICROS_PER_SECOND + timestamp.nanos // 1000
