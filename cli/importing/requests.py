"""The commands that a purchase becomes.

Ids and request ids follow from the row alone, so that a repeated import repeats its commands and changes nothing. What
is made here is stored: changing it makes the next import differ from the last.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from cli.importing.rows import Purchase
from domain.money import money_of
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest
from orderstream.customers.v1.events_pb2 import CustomerRegistered
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.orders.v1.commands_pb2 import CreateOrderRequest
from orderstream.orders.v1.events_pb2 import OrderCreated
from orderstream.orders.v1.order_pb2 import OrderItem

CURRENCY = "USD"


def register_customer(purchase: Purchase) -> RegisterCustomerRequest:
    """Registers the customer of their first purchase in the file, on its day."""
    customer_id = _customer_id(purchase)
    return RegisterCustomerRequest(
        customer_id=customer_id,
        name=f"Customer {purchase.customer}",
        email=f"{purchase.customer}@cdnow.example",
        request_id=f"import-{customer_id}",
        occur_time=_occur_time(purchase),
    )


def create_order(purchase: Purchase) -> CreateOrderRequest:
    """The purchase as an order of one item: so many CDs were sold for one amount, and so the amount stays exact."""
    customer_id = _customer_id(purchase)
    order_id = f"{customer_id}-{purchase.day:%Y%m%d}-{purchase.ordinal}"
    return CreateOrderRequest(
        order_id=order_id,
        customer_id=customer_id,
        items=[
            OrderItem(
                sku=f"cdnow-cds-{purchase.cds}",
                name=f"{purchase.cds} CDs",
                quantity=1,
                unit_price=money_of(CURRENCY, purchase.nanos),
            )
        ],
        request_id=f"import-{order_id}",
        occur_time=_occur_time(purchase),
    )


def is_same_customer(event: RecordedEvent, request: RegisterCustomerRequest) -> bool:
    """Whether `event` registered this very customer; the day may differ, since it depends on the file."""
    registered = CustomerRegistered()
    return event.data.Unpack(registered) and (registered.name, registered.email) == (request.name, request.email)


def is_same_order(event: RecordedEvent, request: CreateOrderRequest) -> bool:
    """Whether `event` created this very order."""
    created = OrderCreated()
    return (
        event.data.Unpack(created)
        and created.customer_id == request.customer_id
        and list(created.items) == list(request.items)
        and created.occur_time == request.occur_time
    )


def _customer_id(purchase: Purchase) -> str:
    return f"cdnow-{purchase.customer}"


def _occur_time(purchase: Purchase) -> Timestamp:
    return Timestamp(seconds=int(purchase.day.timestamp()))
