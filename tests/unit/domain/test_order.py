from __future__ import annotations

import itertools

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from domain import order as orders
from domain.context import Context
from domain.money import money_of, nanos_of
from orderstream.customers.v1.customer_pb2 import Customer
from orderstream.orders.v1.commands_pb2 import (
    AddOrderItemRequest,
    CancelOrderRequest,
    ChangeShippingAddressRequest,
    CreateOrderRequest,
    RemoveOrderItemRequest,
    UpdateOrderStatusRequest,
)
from orderstream.orders.v1.events_pb2 import (
    OrderCancelled,
    OrderCreated,
    OrderItemAdded,
    OrderItemRemoved,
    OrderShippingAddressChanged,
    OrderStatusChanged,
)
from orderstream.orders.v1.order_pb2 import Address, Order, OrderItem, OrderStatus
from orderstream.types.v1.money_pb2 import Money
from tests.unit.domain.scenario import NOW, Scenario

ADA = Customer(customer_id="c-1", name="Ada")
WITH_ADA = Context(NOW, ADA)
LIFE = (orders.CREATED, orders.CONFIRMED, orders.PAID, orders.SHIPPED, orders.DELIVERED, orders.RETURNED)
ALL = (*LIFE, orders.CANCELLED)


def usd(units: int, nanos: int = 0) -> Money:
    return Money(currency_code="USD", units=units, nanos=nanos)


def item(sku: str = "book", quantity: int = 2, price: Money | None = None, name: str = "A book") -> OrderItem:
    return OrderItem(sku=sku, name=name, quantity=quantity, unit_price=price or usd(10, 500_000_000))


def created(*items: OrderItem) -> OrderCreated:
    items = items or (item(),)
    total = sum(each.quantity * nanos_of(each.unit_price) for each in items)
    return OrderCreated(order_id="o-1", customer_id="c-1", items=items, total=money_of("USD", total), occur_time=NOW)


def moved(*, to: OrderStatus.ValueType) -> list[Message]:
    """The events that bring a new order to a status."""
    if to == orders.CANCELLED:
        return [
            OrderCancelled(order_id="o-1", previous_status=orders.CREATED, reason="changed my mind", occur_time=NOW)
        ]
    steps = LIFE[: LIFE.index(to) + 1]
    return [
        OrderStatusChanged(order_id="o-1", previous_status=before, new_status=after, occur_time=NOW)
        for before, after in itertools.pairwise(steps)
    ]


def given(*past: Message) -> Scenario[Order]:
    return Scenario(Order, orders.evolve, *past)


def test_an_order_is_created_with_the_total_that_the_server_computes() -> None:
    command = CreateOrderRequest(
        order_id="o-1", customer_id="c-1", items=[item(), item("pen", 3, usd(1, 333_333_333), "A pen")]
    )
    order = (
        given()
        .when(orders.decide_create, command, WITH_ADA)
        .then(created(item(), item("pen", 3, usd(1, 333_333_333), "A pen")))
    )
    assert order.status == orders.CREATED
    assert order.total == usd(24, 999_999_999)


def test_an_order_needs_a_registered_customer() -> None:
    command = CreateOrderRequest(order_id="o-1", customer_id="c-1", items=[item()])
    given().when(orders.decide_create, command).then_rejected("CUSTOMER_NOT_REGISTERED", customer_id="c-1")


def test_an_order_id_is_used_once() -> None:
    command = CreateOrderRequest(order_id="o-1", customer_id="c-1", items=[item()])
    given(created()).when(orders.decide_create, command, WITH_ADA).then_rejected("ORDER_ALREADY_EXISTS", order_id="o-1")


def test_a_total_over_the_limit_is_refused() -> None:
    command = CreateOrderRequest(
        order_id="o-1", customer_id="c-1", items=[item(quantity=1_000_000, price=usd(1_000_000, 1))]
    )
    given().when(orders.decide_create, command, WITH_ADA).then_rejected("ORDER_TOO_LARGE", order_id="o-1")


def test_an_import_keeps_the_time_of_the_past() -> None:
    past = Timestamp(seconds=852_076_800)
    command = CreateOrderRequest(order_id="o-1", customer_id="c-1", items=[item()], occur_time=past)
    expected = created()
    expected.occur_time.CopyFrom(past)
    assert given().when(orders.decide_create, command, WITH_ADA).then(expected).create_time == past


def test_an_added_item_raises_the_total() -> None:
    pen = item("pen", 1, usd(2), "A pen")
    order = (
        given(created())
        .when(orders.decide_add_item, AddOrderItemRequest(order_id="o-1", item=pen))
        .then(OrderItemAdded(order_id="o-1", item=pen, total=usd(23), occur_time=NOW))
    )
    assert [line.sku for line in order.items] == ["book", "pen"]


def test_more_of_an_item_raises_its_quantity() -> None:
    more = item(quantity=1)
    order = (
        given(created())
        .when(orders.decide_add_item, AddOrderItemRequest(order_id="o-1", item=more))
        .then(OrderItemAdded(order_id="o-1", item=more, total=usd(31, 500_000_000), occur_time=NOW))
    )
    assert [line.quantity for line in order.items] == [3]


@pytest.mark.parametrize(
    ("added", "reason"),
    [
        (item(price=Money(currency_code="EUR", units=1)), "CURRENCY_MISMATCH"),
        (item(price=usd(11)), "ITEM_CONFLICT"),
        (item(name="Another book"), "ITEM_CONFLICT"),
        (item(quantity=999_999), "ORDER_TOO_LARGE"),
        (item("gold", 1_000_000, usd(1_000_000_000), "Gold"), "ORDER_TOO_LARGE"),
    ],
)
def test_an_item_that_does_not_fit_the_order_is_refused(added: OrderItem, reason: str) -> None:
    given(created()).when(orders.decide_add_item, AddOrderItemRequest(order_id="o-1", item=added)).then_rejected(reason)


def test_an_order_has_at_most_200_lines() -> None:
    full = created(*(item(f"sku-{number}") for number in range(200)))
    command = AddOrderItemRequest(order_id="o-1", item=item("one-more"))
    given(full).when(orders.decide_add_item, command).then_rejected("ORDER_TOO_LARGE", limit="200 lines")


def test_removing_pieces_lowers_quantity_and_total() -> None:
    order = (
        given(created())
        .when(orders.decide_remove_item, RemoveOrderItemRequest(order_id="o-1", sku="book", quantity=1))
        .then(OrderItemRemoved(order_id="o-1", sku="book", quantity=1, total=usd(10, 500_000_000), occur_time=NOW))
    )
    assert [line.quantity for line in order.items] == [1]


def test_removing_an_item_without_a_quantity_removes_all_of_it() -> None:
    order = (
        given(created(item(), item("pen", 3, usd(1), "A pen")))
        .when(orders.decide_remove_item, RemoveOrderItemRequest(order_id="o-1", sku="pen"))
        .then(OrderItemRemoved(order_id="o-1", sku="pen", quantity=3, total=usd(21), occur_time=NOW))
    )
    assert [line.sku for line in order.items] == ["book"]


def test_the_last_item_stays() -> None:
    given(created()).when(orders.decide_remove_item, RemoveOrderItemRequest(order_id="o-1", sku="book")).then_rejected(
        "ORDER_WOULD_BE_EMPTY", order_id="o-1"
    )


@pytest.mark.parametrize(("sku", "quantity", "has"), [("pen", 1, "0"), ("book", 3, "2")])
def test_what_is_not_in_the_order_is_not_removed(sku: str, quantity: int, has: str) -> None:
    command = RemoveOrderItemRequest(order_id="o-1", sku=sku, quantity=quantity)
    given(created()).when(orders.decide_remove_item, command).then_rejected("ITEM_NOT_IN_ORDER", sku=sku, quantity=has)


HOME = Address(recipient="Ada", lines=["1 Main St"], city="London", country_code="GB")


def test_the_shipping_address_is_set_and_setting_it_again_changes_nothing() -> None:
    command = ChangeShippingAddressRequest(order_id="o-1", shipping_address=HOME)
    changed = OrderShippingAddressChanged(order_id="o-1", shipping_address=HOME, occur_time=NOW)
    given(created()).when(orders.decide_change_address, command).then(changed)
    given(created(), changed).when(orders.decide_change_address, command).then_nothing()


@pytest.mark.parametrize("status", [status for status in ALL if status != orders.CREATED])
def test_items_and_address_change_only_before_confirmation(status: OrderStatus.ValueType) -> None:
    past = (created(), *moved(to=status))
    for decide, command in (
        (orders.decide_add_item, AddOrderItemRequest(order_id="o-1", item=item())),
        (orders.decide_remove_item, RemoveOrderItemRequest(order_id="o-1", sku="book", quantity=1)),
        (orders.decide_change_address, ChangeShippingAddressRequest(order_id="o-1", shipping_address=HOME)),
    ):
        given(*past).when(decide, command).then_rejected("ORDER_NOT_EDITABLE", order_id="o-1")


@pytest.mark.parametrize(("before", "after"), list(itertools.product(ALL, LIFE[1:])))
def test_a_status_follows_the_table_of_transitions(before: OrderStatus.ValueType, after: OrderStatus.ValueType) -> None:
    decision = given(created(), *moved(to=before)).when(
        orders.decide_update_status, UpdateOrderStatusRequest(order_id="o-1", status=after)
    )
    if before == after:
        decision.then_nothing()
    elif before in LIFE and after in LIFE and LIFE.index(after) == LIFE.index(before) + 1:
        order = decision.then(
            OrderStatusChanged(order_id="o-1", previous_status=before, new_status=after, occur_time=NOW)
        )
        assert order.status == after
    else:
        decision.then_rejected("ILLEGAL_STATUS_TRANSITION", order_id="o-1")


@pytest.mark.parametrize("status", ALL)
def test_an_order_is_cancelled_unless_it_is_shipped(status: OrderStatus.ValueType) -> None:
    decision = given(created(), *moved(to=status)).when(
        orders.decide_cancel, CancelOrderRequest(order_id="o-1", reason="too late")
    )
    if status == orders.CANCELLED:
        decision.then_nothing()
    elif status in (orders.CREATED, orders.CONFIRMED, orders.PAID):
        order = decision.then(OrderCancelled(order_id="o-1", previous_status=status, reason="too late", occur_time=NOW))
        assert (order.status, order.cancel_reason) == (orders.CANCELLED, "too late")
    else:
        decision.then_rejected("ORDER_NOT_CANCELLABLE", order_id="o-1")


@pytest.mark.parametrize(
    ("decide", "command"),
    [
        (orders.decide_add_item, AddOrderItemRequest(order_id="o-1", item=item())),
        (orders.decide_remove_item, RemoveOrderItemRequest(order_id="o-1", sku="book")),
        (orders.decide_change_address, ChangeShippingAddressRequest(order_id="o-1")),
        (orders.decide_update_status, UpdateOrderStatusRequest(order_id="o-1", status=orders.PAID)),
        (orders.decide_cancel, CancelOrderRequest(order_id="o-1", reason="none")),
    ],
)
def test_an_order_that_does_not_exist_is_not_found(decide: object, command: Message) -> None:
    given().when(decide, command).then_rejected("ORDER_NOT_FOUND", order_id="o-1")  # type: ignore[arg-type]


def test_every_status_has_its_transitions() -> None:
    assert set(orders.TRANSITIONS) == set(OrderStatus.values()) - {OrderStatus.ORDER_STATUS_UNSPECIFIED}


@hypothesis_given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 10**12)), min_size=1, max_size=8), st.data())
def test_the_total_is_always_the_sum_of_the_lines(lines: list[tuple[int, int]], data: st.DataObject) -> None:
    past: list[Message] = [
        created(*(item(f"sku-{n}", quantity, money_of("USD", price)) for n, (quantity, price) in enumerate(lines)))
    ]
    for _ in range(data.draw(st.integers(0, 12))):
        order = given(*past).state
        assert order is not None
        line = data.draw(st.sampled_from(list(order.items)))
        if data.draw(st.booleans()):
            added = OrderItem(sku=line.sku, name=line.name, quantity=1, unit_price=line.unit_price)
            past += orders.decide_add_item(order, AddOrderItemRequest(order_id="o-1", item=added), Context(NOW))
        elif len(order.items) > 1 or line.quantity > 1:
            past += orders.decide_remove_item(
                order, RemoveOrderItemRequest(order_id="o-1", sku=line.sku, quantity=1), Context(NOW)
            )
        order = given(*past).state
        assert order is not None
        assert nanos_of(order.total) == sum(each.quantity * nanos_of(each.unit_price) for each in order.items)
        assert order.items
