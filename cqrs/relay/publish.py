"""Publishing a range of the log as one JetStream atomic batch (NATS ADR-50)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client

from cqrs.broker.many import header_block, publish_many
from cqrs.errors import OrderstreamError
from cqrs.ids import new_id
from cqrs.records import EventRecord, to_wire
from cqrs.relay.stream import StreamSettings, Tail
from cqrs.subjects import HEADER_EPOCH, HEADER_HASH, HEADER_POSITION, log_subject

MAX_BATCH = 1000
"""The broker takes no more messages in one atomic batch."""


class BatchRejected(OrderstreamError):
    """The broker did not take the batch: another relay was faster, the stream is gone, or the broker is not well.

    Nothing of the batch is on the stream. Look where the stream stands before trying again.
    """


async def publish_batch(
    client: Client,
    settings: StreamSettings,
    epoch: str,
    tail: Tail,
    events: Sequence[EventRecord],
    timeout_seconds: float,
) -> Tail:
    """Put `events`, which continue `tail`, on the stream: all of them or none; returns the new tail.

    Invariant 5: the first message names the sequence that must be the stream's last, so that of two relays one loses.

    Raises:
        BatchRejected: the broker refused, or acknowledged something else than was sent.
        nats.errors.Error: connection lost or no answer in time; whether the batch was taken is then unknown.
    """
    batch_id = new_id()
    last = events[-1]

    def headers(number: int, event: EventRecord) -> list[tuple[str, str]]:
        found = [
            ("Nats-Batch-Id", batch_id),
            ("Nats-Batch-Sequence", str(number)),
            (HEADER_EPOCH, epoch),
            (HEADER_POSITION, str(event.position)),
            (HEADER_HASH, event.hash.hex()),
        ]
        if number == 1:
            found.append(("Nats-Expected-Last-Sequence", str(tail.position)))
        return found

    messages = (
        (_subject(settings, event), header_block(headers(number, event)), to_wire(event).SerializeToString())
        for number, event in enumerate(events[:-1], start=1)
    )
    await publish_many(client, messages)
    reply = await client.request(
        _subject(settings, last),
        to_wire(last).SerializeToString(),
        timeout=timeout_seconds,
        headers={**dict(headers(len(events), last)), "Nats-Batch-Commit": "1"},
    )
    _check_ack(_parse_ack(reply.data), settings, batch_id, events)
    return Tail(last.position, last.hash)


def _subject(settings: StreamSettings, event: EventRecord) -> str:
    return log_subject(settings.prefix, event.aggregate_type, event.aggregate_id, event.event_type)


def _parse_ack(data: bytes) -> dict[str, Any]:
    try:
        ack = json.loads(data)
    except ValueError as error:
        raise BatchRejected(f"the acknowledgement is no JSON: {data[:100]!r}") from error
    if not isinstance(ack, dict):
        raise BatchRejected(f"the acknowledgement is no object: {data[:100]!r}")
    return ack


def _check_ack(ack: dict[str, Any], settings: StreamSettings, batch_id: str, events: Sequence[EventRecord]) -> None:
    error = ack.get("error")
    if error is not None:
        raise BatchRejected(f"{error.get('description')} ({error.get('err_code')})")
    expected = {"stream": settings.name, "seq": events[-1].position, "batch": batch_id, "count": len(events)}
    found = {key: ack.get(key) for key in expected}
    if found != expected or ack.get("duplicate"):
        raise BatchRejected(f"the acknowledgement {ack} is not the expected {expected}")
