"""Events as the log holds them, the log's head, and the hash chain that joins them.

The stored columns, their order and the form of `chain_hash` are for ever: the hashes in every log depend on them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from orderstream.events.v1.event_pb2 import RecordedEvent

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
    reason: str | None = None
    """Why the command was sent, in its sender's words. Behind `hash` since it came later (migration 0002)."""


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


def chain_hash(previous_hash: bytes, event: EventRecord) -> bytes:
    """What `event.hash` must be behind an event with `previous_hash`."""
    return hash_columns(previous_hash, event, event.reason)


def hash_columns(previous_hash: bytes, columns: Sequence[Any], reason: str | None) -> bytes:
    """SHA-256 over `previous_hash` and an event's stored columns but `hash`: its first 13, and `reason`.

    First the three numbers (8 bytes each) and the lengths of the ten other columns in bytes (4 bytes each, all ones for
    an absent one), big endian; then text as UTF-8 and `data` as stored; each group in column order. A column that was
    added later follows, where it is present, with its number in the table (from 1, 4 bytes), its length (4 bytes) and
    its bytes: so no old hash has changed. Linked like this by Haber and Stornetta, "How to time-stamp a digital
    document", 1991.
    """
    (
        position, event_id, aggregate_type, aggregate_id, version, event_type, record_time,
        request_id, correlation_id, causation_id, actor, traceparent, data,
    ) = columns[:_HASHED_COLUMNS]  # fmt: skip
    text = (
        f"{event_id}{aggregate_type}{aggregate_id}{event_type}"
        f"{request_id or ''}{correlation_id or ''}{causation_id or ''}{actor or ''}{traceparent or ''}"
    )
    measure = len if text.isascii() else _utf8_length  # as nearly all are: characters are bytes
    header = _HASH_HEADER.pack(
        position,
        version,
        record_time,
        measure(event_id),
        measure(aggregate_type),
        measure(aggregate_id),
        measure(event_type),
        _ABSENT if request_id is None else measure(request_id),
        _ABSENT if correlation_id is None else measure(correlation_id),
        _ABSENT if causation_id is None else measure(causation_id),
        _ABSENT if actor is None else measure(actor),
        _ABSENT if traceparent is None else measure(traceparent),
        len(data),
    )
    encoded = text.encode()
    if reason is None:
        return sha256(b"".join((previous_hash, header, encoded, data))).digest()
    added = reason.encode()
    return sha256(b"".join((previous_hash, header, encoded, data, _ADDED.pack(_REASON, len(added)), added))).digest()


def _utf8_length(text: str) -> int:
    return len(text.encode())


_HASHED_COLUMNS = 13
_HASH_HEADER = struct.Struct(">3Q10I")
_ABSENT = 0xFFFF_FFFF
_ADDED = struct.Struct(">II")
_REASON = EventRecord._fields.index("reason") + 1


def to_wire(event: EventRecord) -> RecordedEvent:
    """The event as the contract has it. `data` goes in as stored."""
    wire = RecordedEvent(
        event_id=event.event_id,
        aggregate_type=event.aggregate_type,
        aggregate_id=event.aggregate_id,
        version=event.version,
        position=event.position,
        event_type=event.event_type,
        hash=event.hash,
    )
    # Field by field: messages that are given to a constructor are made first and copied then.
    seconds, micros = divmod(event.record_time, _MICROS_PER_SECOND)
    record_time = wire.record_time
    record_time.seconds = seconds
    record_time.nanos = micros * 1000
    data = wire.data
    data.type_url = TYPE_URL_PREFIX + event.event_type
    data.value = event.data
    metadata = wire.metadata
    metadata.SetInParent()
    if event.request_id:
        metadata.request_id = event.request_id
    if event.correlation_id:
        metadata.correlation_id = event.correlation_id
    if event.causation_id:
        metadata.causation_id = event.causation_id
    if event.actor:
        metadata.actor = event.actor
    if event.traceparent:
        metadata.traceparent = event.traceparent
    if event.reason:
        metadata.reason = event.reason
    return wire


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
        reason=metadata.reason or None,
    )


def to_timestamp(micros: int) -> Timestamp:
    """A Timestamp from microseconds since 1970."""
    seconds, rest = divmod(micros, _MICROS_PER_SECOND)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def to_micros(timestamp: Timestamp) -> int:
    """Microseconds since 1970; what is finer is cut off."""
    return timestamp.seconds * _MICROS_PER_SECOND + timestamp.nanos // 1000
