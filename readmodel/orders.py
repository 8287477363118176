"""The view `orders`: orders with their customer's name and email, and customers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import sqlalchemy as sa
from google.protobuf.message import Message

from cqrs.projection.projection import CannotApply, Event
from cqrs.projection.rows import Needs, RowSet
from cqrs.projection.tables import metadata
from cqrs.projection.view import View
from cqrs.records import to_micros
from orderstream.customers.v1.events_pb2 import CustomerRegistered, CustomerUpdated
from orderstream.orders.v1.events_pb2 import (
    OrderCancelled,
    OrderCreated,
    OrderItemAdded,
    OrderItemRemoved,
    OrderShippingAddressChanged,
    OrderStatusChanged,
)
from orderstream.orders.v1.order_pb2 import OrderItem, OrderStatus
from orderstream.orders.v1.queries_pb2 import OrderView, OrderViewItem
from readmodel.amounts import times

# Looked up once: an attribute of a protobuf enum costs a microsecond.
CREATED = OrderStatus.ORDER_STATUS_CREATED
CANCELLED = OrderStatus.ORDER_STATUS_CANCELLED

# --------------------------------------------------------------------------------------------------------------- tables

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("customer_id", sa.Text, nullable=False),
    # The customer's name and email stand here, not in `document`: a change of name is then one UPDATE.
    sa.Column("customer_name", sa.Text, nullable=False),
    sa.Column("customer_email", sa.Text, nullable=False),
    # A number of orderstream.orders.v1.OrderStatus.
    sa.Column("status", sa.Integer, nullable=False),
    # The total: ISO 4217 code, whole units, billionths of a unit.
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("total_units", sa.BigInteger, nullable=False),
    sa.Column("total_nanos", sa.Integer, nullable=False),
    # Microseconds since 1970: the `occur_time` of the order's first and last event.
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    # The aggregate's version that the row shows, and the log position of that version's event.
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    # A serialised orderstream.orders.v1.OrderView, complete but for customer_name and customer_email.
    sa.Column("document", sa.LargeBinary, nullable=False),
    # For lists, newest first: read backwards. A filter on customer or status keeps that order.
    sa.Index("orders_by_time", "generation", "create_time", "order_id"),
    sa.Index("orders_by_customer", "generation", "customer_id", "create_time", "order_id"),
    sa.Index("orders_by_status", "generation", "status", "create_time", "order_id"),
)

customers = sa.Table(
    "customers",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("customer_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    # Microseconds since 1970: the `occur_time` of the customer's first and last event.
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    # The aggregate's version that the row shows, and the log position of that version's event.
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


class OrderRow(NamedTuple):
    """A row of `orders`."""

    order_id: str
    customer_id: str
    customer_name: str
    customer_email: str
    status: int
    currency: str
    total_units: int
    total_nanos: int
    create_time: int
    update_time: int
    version: int
    position: int
    document: bytes


class CustomerRow(NamedTuple):
    """A row of `customers`."""

    customer_id: str
    name: str
    email: str
    create_time: int
    update_time: int
    version: int
    position: int


ORDERS = View(orders, OrderRow, lambda key: f"orders:{key[0]}")
CUSTOMERS = View(customers, CustomerRow, lambda key: f"customers:{key[0]}")

# ----------------------------------------------------------------------------------------------------------- projection


class OrdersProjection:
    """Keeps `orders` and `customers`.

    An order's customer is registered earlier in the log than the order is placed, and one slot applies the whole log in
    order: the customer's row is there when the order needs it.
    """

    name = "orders"
    code_version = 1
    views: Sequence[View[Any]] = (ORDERS, CUSTOMERS)
    event_types: ClassVar[Mapping[str, type[Message] | None]] = {
        message.DESCRIPTOR.full_name: message
        for message in (
            OrderCreated,
            OrderItemAdded,
            OrderItemRemoved,
            OrderShippingAddressChanged,
            OrderStatusChanged,
            OrderCancelled,
            CustomerRegistered,
            CustomerUpdated,
        )
    }

    def needs(self, events: Sequence[Event], rows: RowSet) -> Iterator[Needs]:
        """Each event's own row, and the customers of new orders."""
        orders_needed, customers_needed = set(), set()
        for event in events:
            if event.aggregate_type == "customer":
                customers_needed.add((event.aggregate_id,))
                continue
            orders_needed.add((event.aggregate_id,))
            if isinstance(event.message, OrderCreated):
                customers_needed.add((event.message.customer_id,))
        yield {ORDERS: orders_needed, CUSTOMERS: customers_needed}

    def apply(self, event: Event, rows: RowSet) -> None:
        """Put the event's effect into `rows`."""
        match event.message:
            case CustomerRegistered() | CustomerUpdated():
                _apply_customer(event, event.message, rows)
            case OrderCreated():
                _create(event, event.message, rows)
            case _:
                _change(event, rows)


def _apply_customer(event: Event, message: CustomerRegistered | CustomerUpdated, rows: RowSet) -> None:
    before = rows.get(CUSTOMERS, event.aggregate_id)
    _check_version(event, before.version if before else 0)
    time = to_micros(message.occur_time)
    rows.put(
        CUSTOMERS,
        CustomerRow(
            customer_id=event.aggregate_id,
            name=message.name,
            email=message.email,
            create_time=before.create_time if before else time,
            update_time=time,
            version=event.version,
            position=event.position,
        ),
    )
    if before and (before.name, before.email) != (message.name, message.email):
        rows.update_where(
            ORDERS, "customer_id", event.aggregate_id, customer_name=message.name, customer_email=message.email
        )


def _create(event: Event, message: OrderCreated, rows: RowSet) -> None:
    before = rows.get(ORDERS, event.aggregate_id)
    _check_version(event, before.version if before else 0)
    customer = rows.get(CUSTOMERS, message.customer_id)
    if customer is None:
        raise CannotApply(f"the order's customer {message.customer_id} has no row")
    view = OrderView(
        order_id=event.aggregate_id,
        customer_id=message.customer_id,
        status=CREATED,
        items=[_line(item) for item in message.items],
        total=message.total,
        piece_count=sum(item.quantity for item in message.items),
        create_time=message.occur_time,
    )
    if message.HasField("shipping_address"):
        view.shipping_address.CopyFrom(message.shipping_address)
    _put(event, view, customer.name, customer.email, rows)


def _change(event: Event, rows: RowSet) -> None:
    before = rows.get(ORDERS, event.aggregate_id)
    if before is None:
        raise CannotApply(f"order {event.aggregate_id} has no row")
    _check_version(event, before.version)
    view = OrderView.FromString(before.document)
    match event.message:
        case OrderItemAdded() as message:
            _add_item(view, message.item)
            view.total.CopyFrom(message.total)
        case OrderItemRemoved() as message:
            _remove_item(view, message.sku, message.quantity)
            view.total.CopyFrom(message.total)
        case OrderShippingAddressChanged() as message:
            view.shipping_address.CopyFrom(message.shipping_address)
        case OrderStatusChanged() as message:
            view.status = message.new_status
        case OrderCancelled() as message:
            view.status = CANCELLED
            view.cancel_reason = message.reason
    _put(event, view, before.customer_name, before.customer_email, rows)


def _put(event: Event, view: OrderView, customer_name: str, customer_email: str, rows: RowSet) -> None:
    view.update_time.CopyFrom(event.message.occur_time)
    view.version = event.version
    view.position = event.position
    rows.put(
        ORDERS,
        OrderRow(
            order_id=view.order_id,
            customer_id=view.customer_id,
            customer_name=customer_name,
            customer_email=customer_email,
            status=view.status,
            currency=view.total.currency_code,
            total_units=view.total.units,
            total_nanos=view.total.nanos,
            create_time=to_micros(view.create_time),
            update_time=to_micros(view.update_time),
            version=event.version,
            position=event.position,
            document=view.SerializeToString(deterministic=True),
        ),
    )


def _check_version(event: Event, version: int) -> None:
    if event.version != version + 1:
        raise CannotApply(f"the row of {event.aggregate_type} {event.aggregate_id} is at version {version}")


def _line(item: OrderItem) -> OrderViewItem:
    return OrderViewItem(
        sku=item.sku,
        name=item.name,
        quantity=item.quantity,
        unit_price=item.unit_price,
        line_total=times(item.unit_price, item.quantity),
    )


def _add_item(view: OrderView, item: OrderItem) -> None:
    for line in view.items:
        if line.sku == item.sku:
            _set_quantity(line, line.quantity + item.quantity)
            break
    else:
        view.items.append(_line(item))
    view.piece_count += item.quantity


def _remove_item(view: OrderView, sku: str, quantity: int) -> None:
    for line in view.items:
        if line.sku == sku:
            removed = min(quantity, line.quantity)
            view.piece_count -= removed
            _set_quantity(line, line.quantity - removed)
            if line.quantity == 0:
                view.items.remove(line)
            return


def _set_quantity(line: OrderViewItem, quantity: int) -> None:
    line.quantity = quantity
    line.line_total.CopyFrom(times(line.unit_price, quantity))
