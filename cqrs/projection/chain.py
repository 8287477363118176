"""Tells whether what arrives is the history that the checkpoint belongs to. Invariants 6 and 7."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf.message import DecodeError

from cqrs.errors import HistoryDiverged
from cqrs.projection.checkpoint import Checkpoint
from cqrs.projection.fold import describe
from cqrs.records import EventRecord, chain_hash, from_wire
from orderstream.events.v1.event_pb2 import RecordedEvent


class Delivery(NamedTuple):
    """An event as it arrived, from the stream or from EventService. Nothing in it is believed yet."""

    position: int
    """The stream sequence, or the position in the log."""
    epoch: str
    """The epoch that the source says it is of."""
    payload: bytes
    """A serialised RecordedEvent."""


def check_chain(checkpoint: Checkpoint, epoch: str, deliveries: Iterable[Delivery]) -> list[EventRecord]:
    """The events, once each is known to follow the one before it, the first the checkpoint.

    Args:
        checkpoint: where the read model is.
        epoch: the history's epoch, as the checkpoint or, before the first event, the stream has it.
        deliveries: of positions that begin at the checkpoint's + 1 and have no gap.

    Raises:
        HistoryDiverged: one does not follow. The message says what differs.
    """
    position, previous_hash = checkpoint.position, checkpoint.hash
    records = []
    for delivery in deliveries:
        record = _open(delivery)
        if delivery.epoch != epoch:
            raise HistoryDiverged(
                f"{describe(record)} is of epoch {delivery.epoch or '(none)'}, the read model of epoch {epoch}: the "
                "log was restored or replaced"
            )
        if delivery.position != position + 1:
            raise HistoryDiverged(f"{describe(record)} came after position {position}")
        computed = chain_hash(previous_hash, record)
        if computed != record.hash:
            raise HistoryDiverged(
                f"{describe(record)} does not chain from position {position} of the read model, whose hash is "
                f"{previous_hash.hex()}: its hash should be {computed.hex()}, but is {record.hash.hex() or '(none)'}"
            )
        position, previous_hash = record.position, record.hash
        records.append(record)
    return records


def check_same(checkpoint: Checkpoint, delivery: Delivery) -> None:
    """Make sure that the event at the checkpoint's own position is the one that was applied.

    Raises:
        HistoryDiverged: it is another. The message says what differs.
    """
    record = _open(delivery)
    if delivery.epoch != checkpoint.epoch:
        raise HistoryDiverged(
            f"{describe(record)} is of epoch {delivery.epoch or '(none)'}, the read model of epoch {checkpoint.epoch}: "
            "the log was restored or replaced"
        )
    if record.hash != checkpoint.hash:
        raise HistoryDiverged(
            f"{describe(record)} is not the event that the read model has applied at this position: its hash is "
            f"{record.hash.hex() or '(none)'}, the applied one's {checkpoint.hash.hex()}"
        )


def _open(delivery: Delivery) -> EventRecord:
    try:
        record = from_wire(RecordedEvent.FromString(delivery.payload))
    except DecodeError as error:
        raise HistoryDiverged(f"position {delivery.position} of the stream holds no event: {error}") from error
    if record.position != delivery.position:
        raise HistoryDiverged(f"position {delivery.position} of the stream holds {describe(record)}")
    return record
