"""OrderCommandService."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from command_server.aggregates import CUSTOMER, ORDER
from command_server.commands.rpc import CommandRpc
from cqrs.serving.validation import Violations
from domain import order
from orderstream.orders.v1.commands_pb2 import (
    AddOrderItemRequest,
    AddOrderItemResponse,
    CancelOrderRequest,
    CancelOrderResponse,
    ChangeShippingAddressRequest,
    ChangeShippingAddressResponse,
    CreateOrderRequest,
    CreateOrderResponse,
    RemoveOrderItemRequest,
    RemoveOrderItemResponse,
    UpdateOrderStatusRequest,
    UpdateOrderStatusResponse,
)
from orderstream.orders.v1.order_pb2 import Address, OrderItem
from orderstream.types.v1.money_pb2 import Money

SERVICE = "orderstream.orders.v1.OrderCommandService"

_MAX_UNIT_PRICE_UNITS = 1_000_000_000
_CURRENCY = re.compile(r"[A-Z]{3}").fullmatch
_COUNTRY = re.compile(r"[A-Z]{2}").fullmatch
_SETTABLE_STATUSES = frozenset({order.CONFIRMED, order.PAID, order.SHIPPED, order.DELIVERED, order.RETURNED})


def _price(field: str, price: Money, violations: Violations) -> None:
    units, nanos = price.units, price.nanos
    if not _CURRENCY(price.currency_code):
        violations.add(f"{field}.currency_code", "must be three upper-case letters, such as USD")
    if not 0 <= nanos <= 999_999_999:
        violations.add(f"{field}.nanos", f"is {nanos}, must be 0 to 999999999")
    over = units == _MAX_UNIT_PRICE_UNITS and nanos > 0
    if over or not 0 <= units <= _MAX_UNIT_PRICE_UNITS:
        violations.add(f"{field}.units", f"is {units}, must be 0 to {_MAX_UNIT_PRICE_UNITS} in all")


class _ItemFields(NamedTuple):
    """The names of an item's fields, made once: making them takes as long as the checks."""

    sku: str
    name: str
    quantity: str
    unit_price: str

    @classmethod
    def of(cls, field: str) -> _ItemFields:
        return cls(f"{field}.sku", f"{field}.name", f"{field}.quantity", f"{field}.unit_price")


_ITEM = _ItemFields.of("item")
_ITEMS = tuple(_ItemFields.of(f"items[{index}]") for index in range(order.MAX_LINES))


def _item(fields: _ItemFields, item: OrderItem, violations: Violations) -> None:
    violations.text(fields.sku, item.sku, 1, 64)
    violations.text(fields.name, item.name, 1, 200)
    violations.integer(fields.quantity, item.quantity, 1, order.MAX_PIECES_PER_LINE)
    _price(fields.unit_price, item.unit_price, violations)


def _address(address: Address, violations: Violations) -> None:
    field = "shipping_address"
    violations.text(f"{field}.recipient", address.recipient, 1, 200)
    if not 1 <= len(address.lines) <= 4:
        violations.add(f"{field}.lines", f"has {len(address.lines)} lines, must have 1 to 4")
    else:
        for index, line in enumerate(address.lines):
            violations.text(f"{field}.lines[{index}]", line, 1, 200)
    violations.text(f"{field}.city", address.city, 1, 100)
    violations.text(f"{field}.region", address.region, 0, 100)
    violations.text(f"{field}.postal_code", address.postal_code, 0, 20)
    if not _COUNTRY(address.country_code):
        violations.add(f"{field}.country_code", "must be two upper-case letters, such as DE")


def _create(request: CreateOrderRequest, violations: Violations) -> None:
    violations.identifier("customer_id", request.customer_id)
    items = request.items
    if not 1 <= len(items) <= order.MAX_LINES:
        violations.add("items", f"has {len(items)} items, must have 1 to {order.MAX_LINES}")
    else:
        _items(items, violations)
    if request.HasField("shipping_address"):
        _address(request.shipping_address, violations)


def _items(items: Sequence[OrderItem], violations: Violations) -> None:
    currency = items[0].unit_price.currency_code
    seen: set[str] = set()
    for fields, item in zip(_ITEMS, items, strict=False):
        _item(fields, item, violations)
        sku = item.sku
        if sku in seen:
            violations.add(fields.sku, "stands in an earlier item: give each SKU once, with its quantity")
        seen.add(sku)
        if item.unit_price.currency_code != currency:
            violations.add(
                f"{fields.unit_price}.currency_code", "differs from that of items[0]: an order has one currency"
            )


def _add_item(request: AddOrderItemRequest, violations: Violations) -> None:
    if request.HasField("item"):
        _item(_ITEM, request.item, violations)
    else:
        violations.add("item", "is required")


def _remove_item(request: RemoveOrderItemRequest, violations: Violations) -> None:
    violations.text("sku", request.sku, 1, 64)
    if request.HasField("quantity"):
        violations.integer("quantity", request.quantity, 1, order.MAX_PIECES_PER_LINE)


def _change_address(request: ChangeShippingAddressRequest, violations: Violations) -> None:
    if request.HasField("shipping_address"):
        _address(request.shipping_address, violations)
    else:
        violations.add("shipping_address", "is required")


def _update_status(request: UpdateOrderStatusRequest, violations: Violations) -> None:
    if request.status not in _SETTABLE_STATUSES:
        hint = "use CancelOrder" if request.status == order.CANCELLED else "see OrderStatus"
        violations.add("status", f"must be CONFIRMED, PAID, SHIPPED, DELIVERED or RETURNED ({hint})")


def _cancel(request: CancelOrderRequest, violations: Violations) -> None:
    violations.text("reason", request.reason, 1, 500)


RPCS = (
    CommandRpc(
        "CreateOrder",
        CreateOrderRequest,
        CreateOrderResponse,
        ORDER,
        _create,
        order.decide_create,
        creates=True,
        customer=(CUSTOMER, "customer_id"),
    ),
    CommandRpc("AddOrderItem", AddOrderItemRequest, AddOrderItemResponse, ORDER, _add_item, order.decide_add_item),
    CommandRpc(
        "RemoveOrderItem",
        RemoveOrderItemRequest,
        RemoveOrderItemResponse,
        ORDER,
        _remove_item,
        order.decide_remove_item,
    ),
    CommandRpc(
        "ChangeShippingAddress",
        ChangeShippingAddressRequest,
        ChangeShippingAddressResponse,
        ORDER,
        _change_address,
        order.decide_change_address,
    ),
    CommandRpc(
        "UpdateOrderStatus",
        UpdateOrderStatusRequest,
        UpdateOrderStatusResponse,
        ORDER,
        _update_status,
        order.decide_update_status,
    ),
    CommandRpc("CancelOrder", CancelOrderRequest, CancelOrderResponse, ORDER, _cancel, order.decide_cancel),
)
