"""Events for people: a line each."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import symbol_database
from google.protobuf.message import DecodeError, Message
from rich.console import RenderableType
from rich.text import Text

from cli.amounts import format_money
from cli.console import to_json
from cli.rendering.common import facts_table, status_name, time_text
from orderstream.customers.v1 import events_pb2 as customer_events
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.orders.v1 import events_pb2 as order_events

# Events are unpacked by name: the modules that define them must have been imported.
_CONTRACT = (customer_events, order_events)


def event_line(event: RecordedEvent, position_width: int = 8) -> Text:
    """Position, time, type, aggregate and version, and what happened in a few words."""
    line = Text(overflow="fold")
    line.append(f"{event.position:>{position_width}} ", style="bold")
    line.append(f"{time_text(event.record_time)} ", style="dim")
    line.append(f"{event.event_type.rpartition('.')[2]} ", style="cyan")
    line.append(f"{event.aggregate_id} v{event.version}")
    message = unpack(event)
    words = _in_words(message) if message is not None else ""
    if words:
        line.append(f"  {words}", style="dim")
    return line


def event_details(event: RecordedEvent) -> RenderableType:
    """Everything about one event."""
    facts = facts_table()
    facts.add_row("event", f"{event.event_type} ({event.event_id})")
    facts.add_row("of", f"{event.aggregate_type} {event.aggregate_id}, version {event.version}")
    facts.add_row("position", f"{event.position:,}")
    facts.add_row("recorded", time_text(event.record_time))
    metadata = event.metadata
    for name, value in (
        ("by", metadata.actor),
        ("because", metadata.reason),
        ("request id", metadata.request_id),
        ("correlation id", metadata.correlation_id),
        ("causation id", metadata.causation_id),
        ("trace", metadata.traceparent),
    ):
        if value:
            facts.add_row(name, value)
    facts.add_row("hash", event.hash.hex())
    data = event_json(event)["data"]
    facts.add_row("data", json.dumps({key: data[key] for key in data if key != "@type"}, indent=2, ensure_ascii=False))
    return facts


def event_json(event: RecordedEvent) -> dict[str, Any]:
    """The event as JSON; one whose type this version does not know has its data as hexadecimal digits."""
    if unpack(event) is not None:
        return to_json(event)
    bare = RecordedEvent()
    bare.CopyFrom(event)
    bare.ClearField("data")
    unknown = to_json(bare)
    unknown["data"] = {"@type": event.data.type_url, "value": event.data.value.hex()}
    return unknown


def unpack(event: RecordedEvent) -> Message | None:
    """The event's message, or None when this version does not know its type."""
    try:
        message = symbol_database.Default().GetSymbol(event.event_type)()
        message.ParseFromString(event.data.value)
    except (KeyError, DecodeError):
        return None
    return message


def _in_words(message: Message) -> str:
    words = ""
    match message:
        case order_events.OrderCreated():
            items = ", ".join(f"{item.quantity} × {item.name}" for item in message.items[:3])
            more = f" and {len(message.items) - 3} more" if len(message.items) > 3 else ""
            words = f"{message.customer_id} · {items}{more} · {format_money(message.total)}"
        case order_events.OrderItemAdded():
            words = f"{message.item.quantity} × {message.item.name} · {format_money(message.total)}"
        case order_events.OrderItemRemoved():
            words = f"{message.quantity} × {message.sku} · {format_money(message.total)}"
        case order_events.OrderShippingAddressChanged():
            words = f"{message.shipping_address.recipient}, {message.shipping_address.city}"
        case order_events.OrderStatusChanged():
            words = f"{status_name(message.previous_status)} → {status_name(message.new_status)}"
        case order_events.OrderCancelled():
            words = message.reason
        case customer_events.CustomerRegistered() | customer_events.CustomerUpdated():
            words = f"{message.name} <{message.email}>"
    return words
