"""The aggregates that this server decides on: where the mechanism meets the domain."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from cqrs.commit.command import AggregateType
from domain import customer, order
from orderstream.customers.v1.customer_pb2 import Customer
from orderstream.orders.v1.order_pb2 import Order


def _by_name(events: Iterable[type[Message]]) -> dict[str, type[Message]]:
    return {event.DESCRIPTOR.full_name: event for event in events}


ORDER = AggregateType(order.AGGREGATE_TYPE, Order, order.evolve, _by_name(order.EVOLVE))
CUSTOMER = AggregateType(customer.AGGREGATE_TYPE, Customer, customer.evolve, _by_name(customer.EVOLVE))

AGGREGATE_TYPES = (ORDER, CUSTOMER)
