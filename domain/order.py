"""The order aggregate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from domain.context import Context
from domain.money import NANOS_PER_UNIT, money_of, nanos_of
from domain.rejection import Rejection
from orderstream.orders.v1.commands_pb2 import (
    AddOrderItemRequest,
    CancelOrderRequest,
    ChangeShippingAddressRequest,
    CreateOrderRequest,
    RemoveOrderItemRequest,
    UpdateOrderStatusRequest,
)
from orderstream.orders.v1.errors_pb2 import OrderErrorReason
from orderstream.orders.v1.events_pb2 import (
    OrderCancelled,
    OrderCreated,
    OrderItemAdded,
    OrderItemRemoved,
    OrderShippingAddressChanged,
    OrderStatusChanged,
)
from orderstream.orders.v1.order_pb2 import Order, OrderItem, OrderStatus

# ---------------------------------------------------------------------------------------------------------------- state

AGGREGATE_TYPE = "order"
"""Stored with every event: never change it."""

MAX_LINES = 200
MAX_PIECES_PER_LINE = 1_000_000
MAX_TOTAL_UNITS = 1_000_000_000_000

CREATED = OrderStatus.ORDER_STATUS_CREATED
CONFIRMED = OrderStatus.ORDER_STATUS_CONFIRMED
PAID = OrderStatus.ORDER_STATUS_PAID
SHIPPED = OrderStatus.ORDER_STATUS_SHIPPED
DELIVERED = OrderStatus.ORDER_STATUS_DELIVERED
RETURNED = OrderStatus.ORDER_STATUS_RETURNED
CANCELLED = OrderStatus.ORDER_STATUS_CANCELLED

TRANSITIONS: dict[OrderStatus.ValueType, frozenset[OrderStatus.ValueType]] = {
    CREATED: frozenset({CONFIRMED, CANCELLED}),
    CONFIRMED: frozenset({PAID, CANCELLED}),
    PAID: frozenset({SHIPPED, CANCELLED}),
    SHIPPED: frozenset({DELIVERED}),
    DELIVERED: frozenset({RETURNED}),
    RETURNED: frozenset(),
    CANCELLED: frozenset(),
}
"""Which status may follow which: the one place that says so."""


def _created(order: Order, event: OrderCreated) -> None:
    order.order_id = event.order_id
    order.customer_id = event.customer_id
    order.status = CREATED
    order.items.MergeFrom(event.items)
    order.total.CopyFrom(event.total)
    if event.HasField("shipping_address"):
        order.shipping_address.CopyFrom(event.shipping_address)
    order.create_time.CopyFrom(event.occur_time)
    order.update_time.CopyFrom(event.occur_time)


def _item_added(order: Order, event: OrderItemAdded) -> None:
    line = _line(order, event.item.sku)
    if line is None:
        order.items.append(event.item)
    else:
        line.quantity += event.item.quantity
    order.total.CopyFrom(event.total)
    order.update_time.CopyFrom(event.occur_time)


def _item_removed(order: Order, event: OrderItemRemoved) -> None:
    line = _line(order, event.sku)
    if line is not None:
        line.quantity -= event.quantity
        if line.quantity <= 0:
            order.items.remove(line)
    order.total.CopyFrom(event.total)
    order.update_time.CopyFrom(event.occur_time)


def _address_changed(order: Order, event: OrderShippingAddressChanged) -> None:
    order.shipping_address.CopyFrom(event.shipping_address)
    order.update_time.CopyFrom(event.occur_time)


def _status_changed(order: Order, event: OrderStatusChanged) -> None:
    order.status = event.new_status
    order.update_time.CopyFrom(event.occur_time)


def _cancelled(order: Order, event: OrderCancelled) -> None:
    order.status = CANCELLED
    order.cancel_reason = event.reason
    order.update_time.CopyFrom(event.occur_time)


def _line(order: Order, sku: str) -> OrderItem | None:
    return next((item for item in order.items if item.sku == sku), None)


# --------------------------------------------------------------------------------------------------------------- evolve

EVOLVE: dict[type[Message], Callable[[Order, Any], None]] = {
    OrderCreated: _created,
    OrderItemAdded: _item_added,
    OrderItemRemoved: _item_removed,
    OrderShippingAddressChanged: _address_changed,
    OrderStatusChanged: _status_changed,
    OrderCancelled: _cancelled,
}
"""What each event does to the state. Its keys are the events of this aggregate."""


def evolve(order: Order, event: Message) -> None:
    """Apply one event to the state, in place; whoever needs the state before it copies first."""
    EVOLVE[type(event)](order, event)


# ------------------------------------------------------------------------------------------------------------ decisions


def decide_create(order: Order | None, command: CreateOrderRequest, context: Context) -> Sequence[OrderCreated]:
    """Place an order for a registered customer."""
    if order is not None:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_ORDER_ALREADY_EXISTS,
            f"order {command.order_id} exists already",
            order_id=command.order_id,
        )
    if context.customer is None:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_CUSTOMER_NOT_REGISTERED,
            f"customer {command.customer_id} is not registered: register it first",
            customer_id=command.customer_id,
        )
    items = command.items
    total = 0
    for item in items:
        total += item.quantity * nanos_of(item.unit_price)
    _refuse_total_over_limit(command.order_id, total)
    return [
        OrderCreated(
            order_id=command.order_id,
            customer_id=command.customer_id,
            items=items,
            total=money_of(items[0].unit_price.currency_code, total),
            shipping_address=command.shipping_address if command.HasField("shipping_address") else None,
            occur_time=_occur_time(command, context),
        )
    ]


def decide_add_item(order: Order | None, command: AddOrderItemRequest, context: Context) -> Sequence[OrderItemAdded]:
    """Add an item, or more pieces of one that the order has."""
    order = _existing(order, command.order_id)
    _refuse_unless_editable(order)
    item = command.item
    currency = order.total.currency_code
    if item.unit_price.currency_code != currency:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_CURRENCY_MISMATCH,
            f"order {order.order_id} is priced in {currency}, the item in {item.unit_price.currency_code}",
            order_id=order.order_id,
            currency_code=currency,
        )
    line = _line(order, item.sku)
    if line is None:
        if len(order.items) >= MAX_LINES:
            raise _too_large(order.order_id, f"{MAX_LINES} lines")
    else:
        if line.name != item.name or nanos_of(line.unit_price) != nanos_of(item.unit_price):
            raise _reject(
                OrderErrorReason.ORDER_ERROR_REASON_ITEM_CONFLICT,
                f"order {order.order_id} has {item.sku} under another name or unit price",
                order_id=order.order_id,
                sku=item.sku,
            )
        if line.quantity + item.quantity > MAX_PIECES_PER_LINE:
            raise _too_large(order.order_id, f"{MAX_PIECES_PER_LINE:,} pieces of a line")
    total = nanos_of(order.total) + item.quantity * nanos_of(item.unit_price)
    _refuse_total_over_limit(order.order_id, total)
    return [
        OrderItemAdded(
            order_id=order.order_id,
            item=item,
            total=money_of(currency, total),
            occur_time=_occur_time(command, context),
        )
    ]


def decide_remove_item(
    order: Order | None, command: RemoveOrderItemRequest, context: Context
) -> Sequence[OrderItemRemoved]:
    """Remove an item or some pieces of it; an order keeps at least one."""
    order = _existing(order, command.order_id)
    _refuse_unless_editable(order)
    line = _line(order, command.sku)
    has = 0 if line is None else line.quantity
    quantity = command.quantity if command.HasField("quantity") else has
    if line is None or quantity > has:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_ITEM_NOT_IN_ORDER,
            f"order {order.order_id} has {has} of {command.sku}",
            order_id=order.order_id,
            sku=command.sku,
            quantity=str(has),
        )
    if quantity == has and len(order.items) == 1:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_ORDER_WOULD_BE_EMPTY,
            f"{command.sku} is the last item of order {order.order_id}: cancel the order instead",
            order_id=order.order_id,
        )
    total = nanos_of(order.total) - quantity * nanos_of(line.unit_price)
    return [
        OrderItemRemoved(
            order_id=order.order_id,
            sku=command.sku,
            quantity=quantity,
            total=money_of(order.total.currency_code, total),
            occur_time=_occur_time(command, context),
        )
    ]


def decide_change_address(
    order: Order | None, command: ChangeShippingAddressRequest, context: Context
) -> Sequence[OrderShippingAddressChanged]:
    """Set or replace the shipping address. The same address again changes nothing."""
    order = _existing(order, command.order_id)
    _refuse_unless_editable(order)
    if order.HasField("shipping_address") and order.shipping_address == command.shipping_address:
        return []
    return [
        OrderShippingAddressChanged(
            order_id=order.order_id,
            shipping_address=command.shipping_address,
            occur_time=_occur_time(command, context),
        )
    ]


def decide_update_status(
    order: Order | None, command: UpdateOrderStatusRequest, context: Context
) -> Sequence[OrderStatusChanged]:
    """Move the order one step on. The same status again changes nothing."""
    order = _existing(order, command.order_id)
    if command.status == order.status:
        return []
    allowed = TRANSITIONS[order.status]
    if command.status not in allowed:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_ILLEGAL_STATUS_TRANSITION,
            f"order {order.order_id} is {_name(order.status)} and cannot become {_name(command.status)}",
            order_id=order.order_id,
            to=_name(command.status),
            allowed=",".join(sorted(map(_name, allowed))),
            **{"from": _name(order.status)},
        )
    return [
        OrderStatusChanged(
            order_id=order.order_id,
            previous_status=order.status,
            new_status=command.status,
            occur_time=_occur_time(command, context),
        )
    ]


def decide_cancel(order: Order | None, command: CancelOrderRequest, context: Context) -> Sequence[OrderCancelled]:
    """Cancel the order, unless it is shipped. Cancelling it again changes nothing, the first reason stays."""
    order = _existing(order, command.order_id)
    if order.status == CANCELLED:
        return []
    if CANCELLED not in TRANSITIONS[order.status]:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_ORDER_NOT_CANCELLABLE,
            f"order {order.order_id} is {_name(order.status)} and cannot be cancelled any more",
            order_id=order.order_id,
            status=_name(order.status),
        )
    return [
        OrderCancelled(
            order_id=order.order_id,
            previous_status=order.status,
            reason=command.reason,
            occur_time=_occur_time(command, context),
        )
    ]


class _Dated(Protocol):
    @property
    def occur_time(self) -> Timestamp: ...

    def HasField(self, field_name: Any, /) -> bool: ...


def _occur_time(command: _Dated, context: Context) -> Timestamp:
    return command.occur_time if command.HasField("occur_time") else context.now


def _existing(order: Order | None, order_id: str) -> Order:
    if order is None:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_ORDER_NOT_FOUND, f"no order has the id {order_id}", order_id=order_id
        )
    return order


def _refuse_unless_editable(order: Order) -> None:
    if order.status != CREATED:
        raise _reject(
            OrderErrorReason.ORDER_ERROR_REASON_ORDER_NOT_EDITABLE,
            f"order {order.order_id} is {_name(order.status)}: items and address change only before confirmation",
            order_id=order.order_id,
            status=_name(order.status),
        )


def _refuse_total_over_limit(order_id: str, total_nanos: int) -> None:
    if total_nanos > MAX_TOTAL_UNITS * NANOS_PER_UNIT:
        raise _too_large(order_id, f"a total of {MAX_TOTAL_UNITS:,} units")


def _too_large(order_id: str, limit: str) -> Rejection:
    return _reject(
        OrderErrorReason.ORDER_ERROR_REASON_ORDER_TOO_LARGE,
        f"order {order_id} would have more than {limit}",
        order_id=order_id,
        limit=limit,
    )


def _name(status: OrderStatus.ValueType) -> str:
    return OrderStatus.Name(status).removeprefix("ORDER_STATUS_")


def _reject(reason: OrderErrorReason.ValueType, message: str, **metadata: str) -> Rejection:
    return Rejection(OrderErrorReason.Name(reason).removeprefix("ORDER_ERROR_REASON_"), message, metadata)
