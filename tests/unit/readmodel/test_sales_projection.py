"""The view `sales`: given events, then figures."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest

from cqrs.projection.fold import Tables, fold
from orderstream.orders.v1.order_pb2 import OrderStatus
from readmodel.orders import OrdersProjection
from readmodel.sales import SalesProjection
from tests.orders_history import History, item, random_history

CREATED = OrderStatus.ORDER_STATUS_CREATED
CONFIRMED = OrderStatus.ORDER_STATUS_CONFIRMED
DELIVERED = OrderStatus.ORDER_STATUS_DELIVERED
RETURNED = OrderStatus.ORDER_STATUS_RETURNED
CANCELLED = OrderStatus.ORDER_STATUS_CANCELLED


def figures(history: History) -> Tables:
    return fold(SalesProjection(), history.events)


def shop() -> History:
    history = History()
    history.register("c1", "Ada")
    history.register("c2", "Bob")
    history.create("o1", "c1", "10.75", day="2024-01-31")
    history.create("o2", "c1", "0.5", day="2024-02-01")
    history.create("o3", "c2", "1", day="2024-02-01", currency="EUR")
    return history


def test_orders_count_by_currency_status_month_day_and_customer() -> None:
    tables = figures(shop())
    assert tables["sales_by_currency"] == {("USD",): ("USD", 2, 11, 250_000_000, 1), ("EUR",): ("EUR", 1, 1, 0, 1)}
    assert tables["sales_by_status"] == {
        (CREATED, "USD"): (CREATED, "USD", 2, 11, 250_000_000),
        (CREATED, "EUR"): (CREATED, "EUR", 1, 1, 0),
    }
    assert set(tables["sales_by_month"].values()) == {
        ("2024-01", "USD", 1, 10, 750_000_000),
        ("2024-02", "USD", 1, 0, 500_000_000),
        ("2024-02", "EUR", 1, 1, 0),
    }
    assert tables["sales_by_day"][("2024-02-01", "USD")] == ("2024-02-01", "USD", 1, 0, 500_000_000)
    assert tables["sales_by_customer"][("USD", "c1")] == ("USD", "c1", 2, 11, 250_000_000)
    assert tables["sales_customers"] == {("c1",): ("c1", "Ada"), ("c2",): ("c2", "Bob")}
    assert tables["sales_summary"] == {(): (2, 3)}


def test_a_new_total_replaces_the_old_one_everywhere() -> None:
    history = shop()
    history.add_item("o1", item("b", 1, "0.25"), "11")
    tables = figures(history)
    assert tables["sales_by_currency"][("USD",)] == ("USD", 2, 11, 500_000_000, 1)
    assert tables["sales_by_status"][(CREATED, "USD")] == (CREATED, "USD", 2, 11, 500_000_000)
    assert tables["sales_by_day"][("2024-01-31", "USD")] == ("2024-01-31", "USD", 1, 11, 0)
    history.remove_item("o1", "b", 1, "10.75")
    before = figures(shop())
    assert figures(history) == before


@pytest.mark.parametrize("final", [CANCELLED, RETURNED])
def test_cancelled_and_returned_orders_count_under_their_status_only(final: OrderStatus.ValueType) -> None:
    history = shop()
    if final == CANCELLED:
        history.cancel("o3")
    else:
        history.status("o3", final, DELIVERED)
    tables = figures(history)
    assert tables["sales_by_status"][(final, "EUR")] == (final, "EUR", 1, 1, 0)
    assert (CREATED, "EUR") not in tables["sales_by_status"]
    assert ("EUR",) not in tables["sales_by_currency"], "figures without an order have no row"
    assert ("EUR", "c2") not in tables["sales_by_customer"]
    assert ("2024-02", "EUR") not in tables["sales_by_month"]
    assert ("2024-02-01", "EUR") not in tables["sales_by_day"]
    assert tables["sales_summary"] == {(): (2, 3)}, "it is still an order"


def test_a_status_moves_an_order_between_statuses_and_nothing_else() -> None:
    history = shop()
    before = figures(history)
    history.status("o1", CONFIRMED)
    after = figures(history)
    assert after["sales_by_status"][(CONFIRMED, "USD")] == (CONFIRMED, "USD", 1, 10, 750_000_000)
    assert after["sales_by_status"][(CREATED, "USD")] == (CREATED, "USD", 1, 0, 500_000_000)
    unchanged = set(after) - {"sales_by_status", "sales_orders"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}


def test_a_change_of_name_reaches_the_customers_of_the_dashboard() -> None:
    history = shop()
    history.rename("c1", "Countess")
    assert figures(history)["sales_customers"][("c1",)] == ("c1", "Countess")
    assert figures(history)["sales_summary"] == {(): (2, 3)}


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_equal_those_computed_from_the_orders(seed: int) -> None:
    history = random_history(600, seed)
    tables = figures(history)
    orders: list[Any] = list(fold(OrdersProjection(), history.events)["orders"].values())

    def total(rows: list[Any]) -> Fraction:
        return sum((Fraction(row.total_units * 10**9 + row.total_nanos, 10**9) for row in rows), Fraction())

    def amount(row: Any) -> Fraction:
        return Fraction(row.units * 10**9 + row.nanos, 10**9)

    counted = [row for row in orders if row.status not in (CANCELLED, RETURNED)]
    for currency in ("USD", "EUR"):
        mine = [row for row in counted if row.currency == currency]
        row: Any = tables["sales_by_currency"][(currency,)]
        assert (row.orders, amount(row), row.customers) == (
            len(mine),
            total(mine),
            len({order.customer_id for order in mine}),
        )
        for table in ("sales_by_month", "sales_by_day", "sales_by_customer"):
            rows: list[Any] = [row for row in tables[table].values() if row.currency == currency]  # type: ignore[attr-defined]
            assert sum(row.orders for row in rows) == len(mine)
            assert sum(map(amount, rows), Fraction()) == total(mine)
    by_status = Counter((row.status, row.currency) for row in orders)
    assert {key: row[2] for key, row in tables["sales_by_status"].items()} == dict(by_status)
