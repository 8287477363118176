"""Orders and customers for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from cli.amounts import format_money
from cli.rendering.common import facts_table, status_name, time_text
from orderstream.customers.v1.customer_pb2 import Customer
from orderstream.customers.v1.queries_pb2 import CustomerView
from orderstream.orders.v1.order_pb2 import Address, Order, OrderItem
from orderstream.orders.v1.queries_pb2 import OrderView, OrderViewItem


def order_details(order: Order | OrderView, version: int) -> RenderableType:
    """One order, everything of it."""
    facts = facts_table()
    facts.add_row("order", order.order_id)
    customer = order.customer_id
    if isinstance(order, OrderView) and order.customer_name:
        customer += f" ({order.customer_name}, {order.customer_email})"
    facts.add_row("customer", customer)
    facts.add_row("status", status_name(order.status))
    facts.add_row("total", format_money(order.total))
    if order.HasField("shipping_address"):
        facts.add_row("ship to", _address(order.shipping_address))
    if order.cancel_reason:
        facts.add_row("cancelled because", order.cancel_reason)
    facts.add_row("placed", time_text(order.create_time))
    facts.add_row("last change", time_text(order.update_time))
    facts.add_row("version", str(version))
    return Group(facts, _items(order.items))


def order_table(orders: Iterable[OrderView]) -> RenderableType:
    """Orders, a line each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("order", overflow="fold")
    table.add_column("customer", overflow="fold")
    table.add_column("status")
    table.add_column("pieces", justify="right")
    table.add_column("total", justify="right")
    table.add_column("placed")
    table.add_column("version", justify="right")
    for order in orders:
        table.add_row(
            order.order_id,
            order.customer_name or order.customer_id,
            status_name(order.status),
            f"{order.piece_count:,}",
            format_money(order.total),
            time_text(order.create_time),
            str(order.version),
        )
    return table if table.row_count else "no orders"


def customer_details(customer: Customer | CustomerView, version: int) -> RenderableType:
    """One customer."""
    facts = facts_table()
    facts.add_row("customer", customer.customer_id)
    facts.add_row("name", customer.name)
    facts.add_row("email", customer.email)
    facts.add_row("registered", time_text(customer.create_time))
    facts.add_row("last change", time_text(customer.update_time))
    facts.add_row("version", str(version))
    return facts


def _items(items: Iterable[OrderItem | OrderViewItem]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("sku", overflow="fold")
    table.add_column("name", overflow="fold")
    table.add_column("quantity", justify="right")
    table.add_column("unit price", justify="right")
    for item in items:
        table.add_row(item.sku, item.name, f"{item.quantity:,}", format_money(item.unit_price))
    return table


def _address(address: Address) -> str:
    town = " ".join(part for part in (address.postal_code, address.city, address.region) if part)
    return ", ".join(part for part in (address.recipient, *address.lines, town, address.country_code) if part)
