"""Values given on the command line."""

from __future__ import annotations

import pytest
import typer

from cli import arguments
from orderstream.orders.v1.order_pb2 import OrderItem, OrderStatus
from orderstream.types.v1.money_pb2 import Money


def test_an_item_is_sku_quantity_price_and_optionally_a_name_with_commas() -> None:
    expected = OrderItem(
        sku="book-1",
        quantity=2,
        name="A, B and C",
        unit_price=Money(currency_code="USD", units=12, nanos=500_000_000),
    )
    assert arguments.item("book-1,2,12.50,A, B and C", "USD") == expected
    assert arguments.item("book-1, 2, 12.50", "USD").name == "book-1"


@pytest.mark.parametrize("text", ["book-1", "book-1,2", "book-1,two,3", "book-1,2,x", "book-1,99999999999,1"])
def test_what_is_no_item_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no item"):
        arguments.item(text, "USD")


def test_a_status_is_given_by_name_in_any_case() -> None:
    assert arguments.status("Shipped") == OrderStatus.ORDER_STATUS_SHIPPED
    with pytest.raises(typer.BadParameter, match="CREATED, CONFIRMED, PAID"):
        arguments.status("unspecified")


def test_a_time_without_an_offset_is_utc() -> None:
    assert arguments.timestamp("2026-05-01") == arguments.timestamp("2026-05-01T02:00:00+02:00")
    with pytest.raises(typer.BadParameter, match="is no time"):
        arguments.timestamp("yesterday")
