"""The view `sales`: the dashboard's figures, kept as rows that are ready to be read.

`sales_orders` has what each order contributes at present. An event replaces the order's contribution: the old one is
taken off the figures and the new one added, so that they stay exact whatever happens to an order. Orders that are
CANCELLED or RETURNED count under their status only, not in currencies, months, days and customers.

Sums are (units, billionths) pairs as in Money: 0 <= nanos < 1,000,000,000. An order is at most 10^12 units, so a sum
fits into 64 bits up to 9 million orders of the largest size. Figures without an order have no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import sqlalchemy as sa
from google.protobuf.message import Message

from cqrs.projection.projection import CannotApply, Event
from cqrs.projection.rows import Needs, RowSet
from cqrs.projection.tables import metadata
from cqrs.projection.view import Key, View
from orderstream.customers.v1.events_pb2 import CustomerRegistered, CustomerUpdated
from orderstream.orders.v1.events_pb2 import (
    OrderCancelled,
    OrderCreated,
    OrderItemAdded,
    OrderItemRemoved,
    OrderShippingAddressChanged,
    OrderStatusChanged,
)
from orderstream.orders.v1.order_pb2 import OrderStatus
from orderstream.types.v1.money_pb2 import Money
from readmodel.amounts import nanos_of, pair_of, utc_day

# Looked up once: an attribute of a protobuf enum costs a microsecond.
CREATED = OrderStatus.ORDER_STATUS_CREATED
CANCELLED = OrderStatus.ORDER_STATUS_CANCELLED

NOT_REVENUE = frozenset({CANCELLED, OrderStatus.ORDER_STATUS_RETURNED})
"""Orders of these statuses count in `sales_by_status` only."""

CHANGE_KEY = "sales:dashboard"
"""What changes with every event that has an effect here: the dashboard is one answer."""

# --------------------------------------------------------------------------------------------------------------- tables


def _figures() -> tuple[sa.Column[int], ...]:
    """How many orders, and the sum of their totals."""
    return (
        sa.Column("orders", sa.BigInteger, nullable=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("nanos", sa.Integer, nullable=False),
    )


def _generation() -> sa.Column[int]:
    return sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False)


sales_orders = sa.Table(
    "sales_orders",
    metadata,
    _generation(),
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("customer_id", sa.Text, nullable=False),
    # A number of orderstream.orders.v1.OrderStatus.
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.Column("nanos", sa.Integer, nullable=False),
    # The UTC day of the order's create_time, "YYYY-MM-DD".
    sa.Column("day", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

sales_by_currency = sa.Table(
    "sales_by_currency",
    metadata,
    _generation(),
    sa.Column("currency", sa.Text, primary_key=True),
    *_figures(),
    # Customers with at least one of these orders.
    sa.Column("customers", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

sales_by_status = sa.Table(
    "sales_by_status",
    metadata,
    _generation(),
    sa.Column("status", sa.Integer, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    *_figures(),
    sqlite_with_rowid=False,
)

sales_by_month = sa.Table(
    "sales_by_month",
    metadata,
    _generation(),
    # "YYYY-MM", UTC.
    sa.Column("month", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    *_figures(),
    sqlite_with_rowid=False,
)

sales_by_day = sa.Table(
    "sales_by_day",
    metadata,
    _generation(),
    # "YYYY-MM-DD", UTC.
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    *_figures(),
    sqlite_with_rowid=False,
)

sales_by_customer = sa.Table(
    "sales_by_customer",
    metadata,
    _generation(),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("customer_id", sa.Text, primary_key=True),
    *_figures(),
    # The top customers of a currency are the end of this index.
    sa.Index("sales_by_customer_revenue", "generation", "currency", "units", "nanos", "customer_id"),
    sqlite_with_rowid=False,
)

sales_customers = sa.Table(
    "sales_customers",
    metadata,
    _generation(),
    sa.Column("customer_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

# One row: what the dashboard counts over everything.
sales_summary = sa.Table(
    "sales_summary",
    metadata,
    _generation(),
    # Registered customers, with or without orders.
    sa.Column("customer_count", sa.BigInteger, nullable=False),
    # Orders of any status.
    sa.Column("order_count", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


class SalesOrderRow(NamedTuple):
    """A row of `sales_orders`: what an order contributes."""

    order_id: str
    customer_id: str
    status: int
    currency: str
    units: int
    nanos: int
    day: str


class CurrencyRow(NamedTuple):
    """A row of `sales_by_currency`."""

    currency: str
    orders: int
    units: int
    nanos: int
    customers: int


class StatusRow(NamedTuple):
    """A row of `sales_by_status`."""

    status: int
    currency: str
    orders: int
    units: int
    nanos: int


class MonthRow(NamedTuple):
    """A row of `sales_by_month`."""

    month: str
    currency: str
    orders: int
    units: int
    nanos: int


class DayRow(NamedTuple):
    """A row of `sales_by_day`."""

    day: str
    currency: str
    orders: int
    units: int
    nanos: int


class CustomerSalesRow(NamedTuple):
    """A row of `sales_by_customer`."""

    currency: str
    customer_id: str
    orders: int
    units: int
    nanos: int


class SalesCustomerRow(NamedTuple):
    """A row of `sales_customers`."""

    customer_id: str
    name: str


class SummaryRow(NamedTuple):
    """The row of `sales_summary`."""

    customer_count: int
    order_count: int


def _change_key(_key: Key) -> str:
    return CHANGE_KEY


ORDERS = View(sales_orders, SalesOrderRow, _change_key)
BY_CURRENCY = View(sales_by_currency, CurrencyRow, _change_key)
BY_STATUS = View(sales_by_status, StatusRow, _change_key)
BY_MONTH = View(sales_by_month, MonthRow, _change_key)
BY_DAY = View(sales_by_day, DayRow, _change_key)
BY_CUSTOMER = View(sales_by_customer, CustomerSalesRow, _change_key)
CUSTOMERS = View(sales_customers, SalesCustomerRow, _change_key)
SUMMARY = View(sales_summary, SummaryRow, _change_key)

# ----------------------------------------------------------------------------------------------------------- projection


class SalesProjection:
    """Keeps the dashboard's figures."""

    name = "sales"
    code_version = 1
    views: Sequence[View[Any]] = (
        ORDERS,
        BY_CURRENCY,
        BY_STATUS,
        BY_MONTH,
        BY_DAY,
        BY_CUSTOMER,
        CUSTOMERS,
        SUMMARY,
    )
    event_types: ClassVar[Mapping[str, type[Message] | None]] = {
        **{
            message.DESCRIPTOR.full_name: message
            for message in (
                OrderCreated,
                OrderItemAdded,
                OrderItemRemoved,
                OrderStatusChanged,
                OrderCancelled,
                CustomerRegistered,
                CustomerUpdated,
            )
        },
        OrderShippingAddressChanged.DESCRIPTOR.full_name: None,
    }

    def needs(self, events: Sequence[Event], rows: RowSet) -> Iterator[Needs]:
        """First each event's own row; then the figures that the orders count in, before and after."""
        order_keys = {(event.aggregate_id,) for event in events if event.aggregate_type == "order"}
        customer_keys = {(event.aggregate_id,) for event in events if event.aggregate_type == "customer"}
        yield {ORDERS: order_keys, CUSTOMERS: customer_keys, SUMMARY: {()}}

        contributions = [row for key in order_keys if (row := rows.get(ORDERS, *key)) is not None]
        contributions += [_created(event, event.message) for event in events if isinstance(event.message, OrderCreated)]
        currencies = {row.currency for row in contributions}
        statuses = {row.status for row in contributions}
        statuses.update(event.message.new_status for event in events if isinstance(event.message, OrderStatusChanged))
        if any(isinstance(event.message, OrderCancelled) for event in events):
            statuses.add(CANCELLED)
        yield {
            BY_CURRENCY: {(currency,) for currency in currencies},
            BY_STATUS: {(status, currency) for status in statuses for currency in currencies},
            BY_MONTH: {(_month(row), row.currency) for row in contributions},
            BY_DAY: {(row.day, row.currency) for row in contributions},
            BY_CUSTOMER: {(row.currency, row.customer_id) for row in contributions},
        }

    def apply(self, event: Event, rows: RowSet) -> None:
        """Put the event's effect into `rows`."""
        message = event.message
        match message:
            case CustomerRegistered():
                if rows.get(CUSTOMERS, event.aggregate_id) is None:
                    _count(rows, customers=1)
                rows.put(CUSTOMERS, SalesCustomerRow(event.aggregate_id, message.name))
            case CustomerUpdated():
                rows.put(CUSTOMERS, SalesCustomerRow(event.aggregate_id, message.name))
            case OrderCreated():
                _count(rows, orders=1)
                _replace(rows, None, _created(event, message))
            case OrderItemAdded() | OrderItemRemoved():
                before = _contribution(event, rows)
                _replace(rows, before, before._replace(units=message.total.units, nanos=message.total.nanos))
            case OrderStatusChanged():
                before = _contribution(event, rows)
                _replace(rows, before, before._replace(status=message.new_status))
            case OrderCancelled():
                before = _contribution(event, rows)
                _replace(rows, before, before._replace(status=CANCELLED))


def _created(event: Event, message: OrderCreated) -> SalesOrderRow:
    total: Money = message.total
    return SalesOrderRow(
        order_id=event.aggregate_id,
        customer_id=message.customer_id,
        status=CREATED,
        currency=total.currency_code,
        units=total.units,
        nanos=total.nanos,
        day=utc_day(message.occur_time),
    )


def _contribution(event: Event, rows: RowSet) -> SalesOrderRow:
    row = rows.get(ORDERS, event.aggregate_id)
    if row is None:
        raise CannotApply(f"order {event.aggregate_id} has no row")
    return row


def _replace(rows: RowSet, before: SalesOrderRow | None, after: SalesOrderRow) -> None:
    """Take the order's old contribution off the figures and add the new one."""
    if before == after:
        return
    rows.put(ORDERS, after)
    if before is not None:
        _add_status(rows, before, -1)
    _add_status(rows, after, +1)
    old = before if before is not None and before.status not in NOT_REVENUE else None
    new = after if after.status not in NOT_REVENUE else None
    if old is not None and new is not None and old._replace(status=new.status) == new:
        return
    if old is not None:
        _add_revenue(rows, old, -1)
    if new is not None:
        _add_revenue(rows, new, +1)


def _add_status(rows: RowSet, order: SalesOrderRow, sign: int) -> None:
    _add(rows, BY_STATUS, StatusRow(order.status, order.currency, 0, 0, 0), order, sign)


def _add_revenue(rows: RowSet, order: SalesOrderRow, sign: int) -> None:
    currency = order.currency
    orders_left = _add(rows, BY_CUSTOMER, CustomerSalesRow(currency, order.customer_id, 0, 0, 0), order, sign)
    _add(rows, BY_MONTH, MonthRow(_month(order), currency, 0, 0, 0), order, sign)
    _add(rows, BY_DAY, DayRow(order.day, currency, 0, 0, 0), order, sign)
    _add(rows, BY_CURRENCY, CurrencyRow(currency, 0, 0, 0, 0), order, sign)
    if orders_left == max(sign, 0):  # the customer's first order in the currency, or none is left
        total = rows.get(BY_CURRENCY, currency)
        if total is not None:
            rows.put(BY_CURRENCY, total._replace(customers=total.customers + sign))


def _add(rows: RowSet, view: View[Any], empty: Any, order: SalesOrderRow, sign: int) -> int:
    """Count the order in the row that has `empty`'s key; returns how many orders the row then has."""
    key = empty[: view.key_length]
    row = rows.get(view, *key) or empty
    orders: int = row.orders + sign
    if orders == 0:
        rows.delete(view, *key)
        return 0
    units, nanos = pair_of(nanos_of(row.units, row.nanos) + sign * nanos_of(order.units, order.nanos))
    rows.put(view, row._replace(orders=orders, units=units, nanos=nanos))
    return orders


def _count(rows: RowSet, customers: int = 0, orders: int = 0) -> None:
    row = rows.get(SUMMARY) or SummaryRow(0, 0)
    rows.put(SUMMARY, SummaryRow(row.customer_count + customers, row.order_count + orders))


def _month(order: SalesOrderRow) -> str:
    return order.day[:7]
