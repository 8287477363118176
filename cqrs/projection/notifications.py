"""Tells query servers what a commit changed. Core NATS: at most once, and they notice when one is missing."""

from __future__ import annotations

from collections.abc import Collection

from nats.aio.client import Client

from cqrs.projection.checkpoint import Checkpoint
from cqrs.records import to_timestamp
from orderstream.projections.v1.notification_pb2 import ProjectionChanged

MAX_KEYS = 1000
"""More changed rows than these are a `flush`: to forget everything is cheaper then."""


def change_message(projection: str, before: Checkpoint, after: Checkpoint, keys: Collection[str]) -> ProjectionChanged:
    """The notification of one commit."""
    flush = len(keys) > MAX_KEYS
    return ProjectionChanged(
        projection=projection,
        generation=after.generation,
        slot=after.slot,
        epoch=after.epoch,
        from_position=before.position,
        to_position=after.position,
        keys=() if flush else sorted(keys),
        flush=flush,
        to_record_time=to_timestamp(after.record_time),
    )


async def publish_changes(client: Client, subject: str, message: ProjectionChanged) -> None:
    """Publish the notification of one commit, also of one that changed no row: readers follow the positions."""
    payload = message.SerializeToString()
    if len(payload) > client.max_payload:
        del message.keys[:]
        message.flush = True
        payload = message.SerializeToString()
    await client.publish(subject, payload)
