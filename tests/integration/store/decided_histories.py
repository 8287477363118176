"""Random histories of two orders and a customer, made through the domain's decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message
from hypothesis import strategies as st

from cqrs.commit.aggregates import LoadedAggregate
from cqrs.records import EventRecord
from domain import customer, order
from domain.context import Context
from domain.rejection import Rejection
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest, UpdateCustomerRequest
from orderstream.orders.v1.commands_pb2 import (
    AddOrderItemRequest,
    CancelOrderRequest,
    ChangeShippingAddressRequest,
    CreateOrderRequest,
    RemoveOrderItemRequest,
    UpdateOrderStatusRequest,
)
from orderstream.orders.v1.order_pb2 import Address, OrderStatus
from tests.orders_history import History, at, item
from tests.snapshots_support import fold_all


class Step(NamedTuple):
    """One command, and what becomes of snapshots after it."""

    kind: str
    order: int
    number: int
    snapshot: str | None
    """How a snapshot is damaged that is taken of the aggregate now; empty: not at all; None: none is taken."""


_KINDS = ("register", "update", "create", "add", "add", "add", "add", "remove", "remove", "address", "status", "cancel")


def steps(damages: Sequence[str]) -> st.SearchStrategy[list[Step]]:
    """Commands in an order that often, but not always, makes sense: refused ones have no events."""
    snapshot = st.one_of(st.none(), st.just(""), st.sampled_from(list(damages)))
    step = st.builds(Step, st.sampled_from(_KINDS), st.integers(0, 1), st.integers(1, 4), snapshot)
    begin = [Step("register", 0, 1, None), Step("create", 0, 2, None), Step("create", 1, 3, None)]
    return st.lists(step, min_size=1, max_size=60).map(lambda drawn: begin + drawn)


def decided(history: History, prefix: str, wanted: Sequence[Step]) -> Iterator[tuple[Step, list[EventRecord]]]:
    """Take the steps, and give the events that each led to. `prefix` begins the ids of the aggregates."""
    for number, step in enumerate(wanted):
        of_customer = step.kind in ("register", "update")
        id_ = f"{prefix}-c" if of_customer else f"{prefix}-o{step.order}"
        state, buyer = _state(history, id_), _state(history, f"{prefix}-c")
        context = Context(at(f"2024-01-{number % 28 + 1:02}"), buyer)
        decide, command = _command(step, id_, f"{prefix}-c")
        try:
            events: Sequence[Message] = decide(state, command, context)
        except Rejection:
            continue
        type_ = customer.AGGREGATE_TYPE if of_customer else order.AGGREGATE_TYPE
        yield step, [history.append(type_, id_, event) for event in events]


def _state(history: History, aggregate_id: str) -> Any:
    folded = fold_all(history.events, aggregate_id)
    return folded.state if isinstance(folded, LoadedAggregate) else None


def _command(step: Step, id_: str, customer_id: str) -> tuple[Callable[..., Sequence[Message]], Message]:
    number = step.number
    sku = f"s-{number}"
    commands: dict[str, tuple[Callable[..., Sequence[Message]], Message]] = {
        "register": (
            customer.decide_register,
            RegisterCustomerRequest(customer_id=id_, name="Ada", email="a@b.example"),
        ),
        "update": (customer.decide_update, UpdateCustomerRequest(customer_id=id_, name=f"Ada {number}")),
        "create": (
            order.decide_create,
            CreateOrderRequest(order_id=id_, customer_id=customer_id, items=[item(sku, number, "2.5")]),
        ),
        "add": (order.decide_add_item, AddOrderItemRequest(order_id=id_, item=item(sku, number, "2.5"))),
        "remove": (order.decide_remove_item, RemoveOrderItemRequest(order_id=id_, sku=sku, quantity=1)),
        "address": (
            order.decide_change_address,
            ChangeShippingAddressRequest(order_id=id_, shipping_address=Address(city=f"City {number}")),
        ),
        "status": (
            order.decide_update_status,
            UpdateOrderStatusRequest(order_id=id_, status=OrderStatus.ValueType(number + 1)),
        ),
        "cancel": (order.decide_cancel, CancelOrderRequest(order_id=id_, reason="no longer wanted")),
    }
    return commands[step.kind]
