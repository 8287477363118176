"""Histories of orders and customers for tests: a log in a list, as the command side would have written it."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cqrs.ids import new_id
from cqrs.records import GENESIS_HASH, EventRecord, LogHead, chain_hash
from orderstream.customers.v1.events_pb2 import CustomerRegistered, CustomerUpdated
from orderstream.orders.v1.events_pb2 import (
    OrderCancelled,
    OrderCreated,
    OrderItemAdded,
    OrderItemRemoved,
    OrderShippingAddressChanged,
    OrderStatusChanged,
)
from orderstream.orders.v1.order_pb2 import Address, OrderItem, OrderStatus
from orderstream.types.v1.money_pb2 import Money

EPOCH = "11111111-1111-7111-8111-111111111111"
START_MICROS = 1_700_000_000_000_000
NANOS = 1_000_000_000


def money(text: str, currency: str = "USD") -> Money:
    """An amount from its decimal text."""
    units, _, fraction = text.partition(".")
    return Money(currency_code=currency, units=int(units), nanos=int(fraction.ljust(9, "0")) if fraction else 0)


def at(text: str) -> Timestamp:
    """A UTC time from "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS"."""
    return Timestamp(seconds=int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()))


def item(sku: str, quantity: int, price: str, currency: str = "USD") -> OrderItem:
    return OrderItem(sku=sku, name=f"Item {sku}", quantity=quantity, unit_price=money(price, currency))


class History:
    """A log of one epoch. Methods append events; `events` has the records."""

    def __init__(self, epoch: str = EPOCH) -> None:
        self.epoch = epoch
        self.events: list[EventRecord] = []
        self._versions: dict[str, int] = {}

    @property
    def head(self) -> LogHead:
        if not self.events:
            return LogHead(0, GENESIS_HASH, self.epoch, 0)
        last = self.events[-1]
        return LogHead(last.position, last.hash, self.epoch, last.record_time)

    def append(self, aggregate_type: str, aggregate_id: str, message: Message) -> EventRecord:
        version = self._versions.get(aggregate_id, 0) + 1
        self._versions[aggregate_id] = version
        position = len(self.events) + 1
        event = EventRecord(
            position=position,
            event_id=new_id(),
            aggregate_type=aggregate_type,
            aggregate_id=aggregate_id,
            version=version,
            event_type=message.DESCRIPTOR.full_name,
            record_time=START_MICROS + position,
            request_id=None,
            correlation_id=None,
            causation_id=None,
            actor="ada",
            traceparent=None,
            data=message.SerializeToString(),
            hash=b"",
        )
        event = event._replace(hash=chain_hash(self.head.hash, event))
        self.events.append(event)
        return event

    def register(self, customer: str, name: str = "", email: str = "", day: str = "2024-01-01") -> EventRecord:
        message = CustomerRegistered(
            customer_id=customer, name=name or f"Name of {customer}", email=email, occur_time=at(day)
        )
        return self.append("customer", customer, message)

    def rename(self, customer: str, name: str, email: str = "", day: str = "2024-06-01") -> EventRecord:
        message = CustomerUpdated(customer_id=customer, name=name, email=email, occur_time=at(day))
        return self.append("customer", customer, message)

    def create(
        self, order: str, customer: str, total: str = "10", day: str = "2024-01-31", currency: str = "USD"
    ) -> EventRecord:
        message = OrderCreated(
            order_id=order,
            customer_id=customer,
            items=[item("a", 1, total, currency)],
            total=money(total, currency),
            occur_time=at(day),
        )
        return self.append("order", order, message)

    def add_item(self, order: str, added: OrderItem, total: str, day: str = "2024-02-01") -> EventRecord:
        message = OrderItemAdded(
            order_id=order, item=added, total=money(total, added.unit_price.currency_code), occur_time=at(day)
        )
        return self.append("order", order, message)

    def remove_item(
        self, order: str, sku: str, quantity: int, total: str, day: str = "2024-02-02", currency: str = "USD"
    ) -> EventRecord:
        message = OrderItemRemoved(
            order_id=order, sku=sku, quantity=quantity, total=money(total, currency), occur_time=at(day)
        )
        return self.append("order", order, message)

    def address(self, order: str, city: str, day: str = "2024-02-03") -> EventRecord:
        message = OrderShippingAddressChanged(
            order_id=order,
            shipping_address=Address(recipient="Ada", lines=["1 Main St"], city=city, country_code="GB"),
            occur_time=at(day),
        )
        return self.append("order", order, message)

    def status(
        self,
        order: str,
        new: OrderStatus.ValueType,
        previous: OrderStatus.ValueType = OrderStatus.ORDER_STATUS_CREATED,
        day: str = "2024-02-04",
    ) -> EventRecord:
        message = OrderStatusChanged(order_id=order, previous_status=previous, new_status=new, occur_time=at(day))
        return self.append("order", order, message)

    def cancel(self, order: str, reason: str = "no longer wanted", day: str = "2024-02-05") -> EventRecord:
        message = OrderCancelled(
            order_id=order,
            previous_status=OrderStatus.ORDER_STATUS_CREATED,
            reason=reason,
            occur_time=at(day),
        )
        return self.append("order", order, message)


def random_history(events: int, seed: int, history: History | None = None) -> History:
    """A history with a bit of everything: many customers, changes of name, every status, two currencies."""
    chance = random.Random(seed)
    history = history or History()
    orders: dict[str, tuple[str, int, OrderStatus.ValueType]] = {}
    customers: list[str] = []
    while len(history.events) < events:
        kind = chance.random()
        if not customers or kind < 0.1:
            customers.append(f"c{seed}-{len(customers)}")
            history.register(customers[-1], email=f"{customers[-1]}@example.com")
        elif kind < 0.15:
            history.rename(chance.choice(customers), f"Name {chance.randrange(1000)}", "new@example.com")
        elif not orders or kind < 0.55:
            order, currency, cents = (
                f"o{seed}-{len(orders)}",
                chance.choice(("USD", "EUR")),
                chance.randrange(1, 99_999),
            )
            day = f"2024-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
            history.create(order, chance.choice(customers), f"{cents // 100}.{cents % 100:02}", day, currency)
            orders[order] = (currency, cents, OrderStatus.ORDER_STATUS_CREATED)
        else:
            _change_an_order(history, orders, chance)
    return history


def _change_an_order(
    history: History, orders: dict[str, tuple[str, int, OrderStatus.ValueType]], chance: random.Random
) -> None:
    order = chance.choice(list(orders))
    currency, cents, status = orders[order]
    if status == OrderStatus.ORDER_STATUS_CREATED and chance.random() < 0.5:
        if chance.random() < 0.3:
            history.address(order, f"City {chance.randrange(100)}")
            return
        cents += 250
        total = f"{cents // 100}.{cents % 100:02}"
        history.add_item(order, item(chance.choice("xyz"), 1, "2.5", currency), total)
        orders[order] = (currency, cents, status)
    elif status < OrderStatus.ORDER_STATUS_SHIPPED and chance.random() < 0.2:
        history.cancel(order)
        orders[order] = (currency, cents, OrderStatus.ORDER_STATUS_CANCELLED)
    elif status < OrderStatus.ORDER_STATUS_RETURNED:
        new = OrderStatus.ValueType(status + 1)
        history.status(order, new, status)
        orders[order] = (currency, cents, new)
