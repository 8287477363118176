"""The view `orders`: given events, then rows."""

from __future__ import annotations

import pytest

from cqrs.projection.fold import fold
from cqrs.projection.projection import CannotApply
from orderstream.orders.v1.events_pb2 import OrderCreated
from orderstream.orders.v1.order_pb2 import OrderStatus
from orderstream.orders.v1.queries_pb2 import OrderView
from readmodel.orders import CustomerRow, OrderRow, OrdersProjection
from tests.orders_history import History, at, item, money

PROJECTION = OrdersProjection()


def order_row(history: History, order: str = "o1") -> tuple[OrderRow, OrderView]:
    row = fold(PROJECTION, history.events)["orders"][(order,)]
    assert isinstance(row, OrderRow)
    return row, OrderView.FromString(row.document)


def placed() -> History:
    history = History()
    history.register("c1", "Ada", "ada@example.com")
    history.create("o1", "c1", "12.5", day="2024-01-31")
    return history


def test_a_new_order_is_shown_with_its_customer_s_name_and_email() -> None:
    row, view = order_row(placed())
    assert (row.customer_id, row.customer_name, row.customer_email) == ("c1", "Ada", "ada@example.com")
    assert (row.status, row.currency, row.total_units, row.total_nanos) == (1, "USD", 12, 500_000_000)
    assert row.create_time == row.update_time == at("2024-01-31").seconds * 1_000_000
    assert (row.version, row.position) == (1, 2)
    assert view.items[0].line_total == view.total == money("12.5")
    assert (view.customer_name, view.customer_email) == ("", ""), "they stand in columns only"
    assert (view.version, view.position, view.piece_count) == (1, 2, 1)


def test_adding_pieces_of_an_item_that_the_order_has_adds_to_its_line() -> None:
    history = placed()
    history.add_item("o1", item("a", 2, "12.5"), "37.5", day="2024-02-01")
    history.add_item("o1", item("b", 3, "0.1"), "37.8", day="2024-02-02")
    row, view = order_row(history)
    assert [(line.sku, line.quantity, line.line_total) for line in view.items] == [
        ("a", 3, money("37.5")),
        ("b", 3, money("0.3")),
    ]
    assert (view.piece_count, view.total, row.total_units) == (6, money("37.8"), 37)
    assert row.update_time == at("2024-02-02").seconds * 1_000_000
    assert (row.version, row.position) == (3, 4)


def test_removing_some_pieces_keeps_the_line_and_removing_all_drops_it() -> None:
    history = placed()
    history.add_item("o1", item("b", 3, "1"), "15.5")
    history.remove_item("o1", "b", 1, "14.5")
    assert [(line.sku, line.quantity) for line in order_row(history)[1].items] == [("a", 1), ("b", 2)]
    history.remove_item("o1", "b", 2, "12.5")
    view = order_row(history)[1]
    assert [(line.sku, line.quantity) for line in view.items] == [("a", 1)]
    assert (view.piece_count, view.total) == (1, money("12.5"))


def test_address_status_and_cancellation_reach_the_view() -> None:
    history = placed()
    history.address("o1", "London")
    history.status("o1", OrderStatus.ORDER_STATUS_CONFIRMED)
    row, view = order_row(history)
    assert (view.shipping_address.city, row.status, view.status) == ("London", 2, 2)
    history.cancel("o1", "changed my mind")
    row, view = order_row(history)
    assert (row.status, view.status, view.cancel_reason) == (7, 7, "changed my mind")


def test_a_change_of_name_reaches_all_orders_of_the_customer_and_no_other() -> None:
    history = placed()
    history.register("c2", "Bob", "bob@example.com")
    history.create("o2", "c2")
    history.create("o3", "c1")
    history.rename("c1", "Countess Lovelace", "countess@example.com")
    history.create("o4", "c1")
    tables = fold(PROJECTION, history.events)
    names = {key[0]: (row.customer_name, row.customer_email) for key, row in tables["orders"].items()}  # type: ignore[attr-defined]
    lovelace = ("Countess Lovelace", "countess@example.com")
    assert names == {"o1": lovelace, "o2": ("Bob", "bob@example.com"), "o3": lovelace, "o4": lovelace}
    order = tables["orders"][("o1",)]
    assert isinstance(order, OrderRow)
    assert (order.version, order.position) == (1, 2), "the order itself has not changed"
    customer = tables["customers"][("c1",)]
    assert customer == CustomerRow(
        *("c1", *lovelace), at("2024-01-01").seconds * 10**6, at("2024-06-01").seconds * 10**6, version=2, position=6
    )


def test_an_event_that_does_not_fit_its_row_is_refused() -> None:
    history = History()
    history.create("o1", "nobody")
    with pytest.raises(CannotApply, match=r"event 1 .*customer nobody has no row"):
        fold(PROJECTION, history.events)
    with pytest.raises(CannotApply, match="version 1"):
        fold(PROJECTION, [*placed().events, placed().events[-1]])
    history = History()
    history.cancel("o9")
    with pytest.raises(CannotApply, match="order o9 has no row"):
        fold(PROJECTION, history.events)


def test_an_event_of_an_unknown_type_is_refused_and_not_passed_over() -> None:
    event = placed().events[0]._replace(event_type="orderstream.orders.v2.OrderSplit")
    with pytest.raises(CannotApply, match=r"does not know events of type orderstream\.orders\.v2\.OrderSplit"):
        fold(PROJECTION, [event])


def test_data_that_are_no_such_message_are_refused() -> None:
    broken = History().register("c1")._replace(event_type=OrderCreated.DESCRIPTOR.full_name, data=b"\xff\xff")
    with pytest.raises(CannotApply, match=r"the data are no orderstream\.orders\.v1\.OrderCreated"):
        fold(PROJECTION, [broken])
