"""Names on the broker: subjects of the stream and of what lies beside it, and the headers of its messages.

Subjects are stored with every message of the stream: never change their form.
"""

from __future__ import annotations

from cqrs.ids import partition_of

HEADER_EPOCH = "Orderstream-Epoch"
HEADER_POSITION = "Orderstream-Position"
HEADER_HASH = "Orderstream-Hash"
"""Hexadecimal, 64 characters."""


def log_filter(prefix: str) -> str:
    """The subjects of the stream, all of them."""
    return f"{prefix}.log.>"


def log_subject(prefix: str, aggregate_type: str, aggregate_id: str, event_type: str) -> str:
    """The subject of one event: `<prefix>.log.<aggregate type>.<partition>.<EventType>`."""
    return f"{prefix}.log.{aggregate_type}.{partition_of(aggregate_id)}.{event_type.rpartition('.')[2]}"


def changes_subject(prefix: str, projection: str) -> str:
    """Where the projector tells query servers what changed. Core NATS, outside the stream."""
    return f"{prefix}.changes.{projection}"


def heartbeat_subject(prefix: str) -> str:
    """Where the relay tells how far the log has got. Core NATS, outside the stream."""
    return f"{prefix}.heartbeat"


def committed_subject(prefix: str) -> str:
    """Where command servers that share a log tell each other how far it has got. Core NATS, outside the stream."""
    return f"{prefix}.committed"
