"""States of aggregates, as they are or as they were."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from cli.rendering.common import time_text
from cli.rendering.orders import customer_details, order_details
from orderstream.customers.v1.customer_pb2 import Customer
from orderstream.events.v1.event_service_pb2 import GetAggregateStateResponse
from orderstream.orders.v1.order_pb2 import Order


def state_details(answer: GetAggregateStateResponse) -> RenderableType:
    """The state, and which event made it what it is."""
    point = Text(f"after log position {answer.position:,}, recorded {time_text(answer.record_time)}", style="dim")
    order, customer = Order(), Customer()
    if answer.state.Unpack(order):
        return Group(point, order_details(order, answer.version))
    if answer.state.Unpack(customer):
        return Group(point, customer_details(customer, answer.version))
    return Group(
        point, f"{answer.aggregate_type} {answer.aggregate_id}, version {answer.version}: {answer.state.type_url}"
    )
