"""Events as JSON lines that are the same bytes each time, and from which the log's columns can be made again."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from google.protobuf import symbol_database
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from cli.auditing.log_source import LogSource
from cli.failures import CheckFailed
from cqrs.head_line import time_text
from cqrs.records import EventRecord
from orderstream.customers.v1 import events_pb2 as customer_events
from orderstream.orders.v1 import events_pb2 as order_events

# Events are decoded by name: the modules that define them must have been imported.
_CONTRACT = (customer_events, order_events)

_PART_EVENTS = 1000
_PART_BYTES = 8 * 1024 * 1024

_OPTIONAL = ("request_id", "correlation_id", "causation_id", "actor", "traceparent", "reason")
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def export_lines(source: LogSource, first: int, last: int) -> Iterator[list[str]]:
    """Lines of the events from `first` to `last`, without line ends, some at a time. Needs the memory of these few.

    Raises:
        CheckFailed: the log has no event at one of these positions.
    """
    position = first - 1
    while position < last:
        rows = source.read(position + 1, last, _PART_EVENTS, _PART_BYTES)
        lines = []
        for row in rows:
            if row[0] != position + 1:
                raise _missing(position + 1)
            position = row[0]
            lines.append(event_line(EventRecord(*row)))
        if not lines:
            raise _missing(position + 1)
        yield lines


def event_line(event: EventRecord, **more: object) -> str:
    """One event as a line of JSON; `more` comes first.

    `event` is its message as JSON. Where that does not say all (the type is one that this release does not know, or has
    fields that it does not know), `data` has the stored bytes in base64.
    """
    line: dict[str, Any] = {
        **more,
        "position": event.position,
        "event_id": event.event_id,
        "aggregate_type": event.aggregate_type,
        "aggregate_id": event.aggregate_id,
        "version": event.version,
        "event_type": event.event_type,
        "record_time": time_text(event.record_time),
    }
    for name in _OPTIONAL:
        value = getattr(event, name)
        if value is not None:
            line[name] = value
    message, whole = _decode(event.event_type, event.data)
    if message is not None:
        line["event"] = MessageToDict(message, preserving_proto_field_name=True)
    if not whole:
        line["data"] = b64encode(event.data).decode()
    line["hash"] = event.hash.hex()
    return _ENCODER.encode(line)


def _decode(event_type: str, data: bytes) -> tuple[Message | None, bool]:
    """The message, if it can be read, and whether it says all that the bytes say."""
    message_class = _message_class(event_type)
    if message_class is None:
        return None, False
    try:
        message = message_class.FromString(data)
    except DecodeError:
        return None, False
    message.DiscardUnknownFields()
    return message, message.SerializeToString(deterministic=True) == data


@lru_cache(maxsize=1024)
def _message_class(event_type: str) -> type[Message] | None:
    try:
        return symbol_database.Default().GetSymbol(event_type)
    except KeyError:
        return None


def _missing(position: int) -> CheckFailed:
    return CheckFailed(f"the log has no event at position {position}", hint="`orderstream log verify` tells more")
