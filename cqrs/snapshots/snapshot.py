"""A snapshot as the write DB holds it, and what the log has to say about it."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import NamedTuple

from google.protobuf.message import Message

LARGEST = 2**63 - 1
"""The largest version, position or time that the write DB can hold."""


class Snapshot(NamedTuple):
    """An aggregate's state after one of its events: a row of `snapshots`, column for column and in column order."""

    aggregate_id: str
    version: int
    """Version of the last event that is in the state."""
    position: int
    """Position of that event."""
    hash: bytes
    """Hash of that event: as the log is a chain, it stands for everything before it too."""
    aggregate_type: str
    record_time: int
    """Record time of that event, in microseconds since 1970."""
    fingerprint: bytes
    """Of the code that folded it and of the messages it is made of (ADR 14); 32 bytes."""
    state: bytes
    """The state message, serialised."""
    checksum: bytes
    """`checksum_of` all the other columns; 32 bytes."""


class Capture(NamedTuple):
    """What a snapshot is made from: a state in memory, which nobody changes any more, and its last event."""

    aggregate_id: str
    version: int
    position: int
    hash: bytes
    aggregate_type: str
    record_time: int
    state: Message


class Candidate(NamedTuple):
    """A snapshot that was found, and the log's event of the same aggregate and version."""

    snapshot: Snapshot
    position: int | None
    """Position of that event; None: the log has none."""
    hash: bytes | None
    """Its hash; None: the log has none."""


class Outlook(NamedTuple):
    """What there is to load of an aggregate."""

    newest_version: int
    """Version of its last event, 1 or more."""
    candidate: Candidate | None
    """Its newest snapshot, if it has any."""


class Bound(NamedTuple):
    """A point in an aggregate's life: everything up to these, all included."""

    version: int = LARGEST
    position: int = LARGEST
    record_time: int = LARGEST
    """Microseconds since 1970."""


def seal(capture: Capture, fingerprint: bytes) -> Snapshot:
    """The snapshot of what was captured. Serialises the state: tens of microseconds for one of some kilobytes."""
    unsealed = Snapshot(*capture[:-1], fingerprint, capture.state.SerializeToString(), b"")
    return unsealed._replace(checksum=checksum_of(unsealed))


def checksum_of(snapshot: Snapshot) -> bytes:
    """SHA-256 over all other columns, with their lengths: shows what a bad disk or a stray UPDATE has changed."""
    digest = sha256(_NUMBERS.pack(snapshot.version, snapshot.position, snapshot.record_time))
    for part in (
        snapshot.aggregate_id.encode(),
        snapshot.hash,
        snapshot.aggregate_type.encode(),
        snapshot.fingerprint,
        snapshot.state,
    ):
        digest.update(_LENGTH.pack(len(part)))
        digest.update(part)
    return digest.digest()


_NUMBERS = struct.Struct(">3q")
_LENGTH = struct.Struct(">Q")
