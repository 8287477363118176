"""The command side, as a client sees it: the calls that are measured, and how their effect is verified."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import grpc

from bench.load import LoadFailed, LoadResult, Target
from bench.pairs import Call
from orderstream.commands.v1.command_service_pb2 import Command, ExecuteCommandsRequest
from orderstream.commands.v1.command_service_pb2_grpc import CommandServiceStub
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest
from orderstream.customers.v1.commands_pb2_grpc import CustomerCommandServiceStub
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream.orders.v1.commands_pb2 import CreateOrderRequest, CreateOrderResponse, UpdateOrderStatusRequest
from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceStub
from orderstream.orders.v1.order_pb2 import OrderItem, OrderStatus
from orderstream.types.v1.money_pb2 import Money

CREATE_ORDER = "/orderstream.orders.v1.OrderCommandService/CreateOrder"
UPDATE_STATUS = "/orderstream.orders.v1.OrderCommandService/UpdateOrderStatus"
EXECUTE_COMMANDS = "/orderstream.commands.v1.CommandService/ExecuteCommands"

COMMANDS_PER_MESSAGE = 64
"""Of a bulk stream."""

CALL_SECONDS = 30.0
"""Deadline of the few calls that are made outside of the load."""

_ORDERS_AT_ONCE = 2048
"""Orders that a supply of updates makes: so far apart are two updates of one order, which then never overlap."""

_STEPS = (
    OrderStatus.ORDER_STATUS_CONFIRMED,
    OrderStatus.ORDER_STATUS_PAID,
    OrderStatus.ORDER_STATUS_SHIPPED,
    OrderStatus.ORDER_STATUS_DELIVERED,
    OrderStatus.ORDER_STATUS_RETURNED,
)
"""The statuses that an order goes through, which each raise its version by one."""


class CommandSide:
    """One or more command servers of one log."""

    def __init__(self, addresses: Sequence[str], channel: grpc.aio.Channel) -> None:
        """Send the load to `addresses`, and what belongs around it over `channel`, to one of them."""
        self.position = 0
        """How many events the log must have by now."""
        self._addresses = addresses
        self._log = EventServiceStub(channel)
        self._orders = OrderCommandServiceStub(channel)
        self._customers = CustomerCommandServiceStub(channel)
        self._bulk = CommandServiceStub(channel)
        # No ids: the server makes them, so that one request repeated creates an order each time.
        self._order = CreateOrderRequest(
            customer_id="bench-customer",
            items=[
                OrderItem(
                    sku=f"sku-{number}",
                    name=f"Article number {number}",
                    quantity=number,
                    unit_price=Money(currency_code="USD", units=12, nanos=990_000_000),
                )
                for number in (1, 2)
            ],
        )

    async def open(self) -> None:
        """Make sure that the customer is there whom all orders belong to, and look where the log ends."""
        await self._customers.RegisterCustomer(
            RegisterCustomerRequest(
                customer_id="bench-customer", name="Bench", email="bench@orderstream.example", request_id="bench"
            ),
            timeout=CALL_SECONDS,
        )
        self.position = await self.head()

    async def head(self) -> int:
        """How many events the log has."""
        return (await self._log.DescribeLog(DescribeLogRequest(), timeout=CALL_SECONDS)).position

    async def place_order(self) -> CreateOrderResponse:
        """One order."""
        response = await self._orders.CreateOrder(self._order, timeout=CALL_SECONDS)
        self.position += 1
        return response

    async def place_orders(self, order_ids: Sequence[str]) -> None:
        """Many orders, with these ids."""
        size = COMMANDS_PER_MESSAGE

        async def messages() -> AsyncIterator[ExecuteCommandsRequest]:
            for start in range(0, len(order_ids), size):
                orders = [Command(create_order=self._order) for _ in order_ids[start : start + size]]
                for order, order_id in zip(orders, order_ids[start : start + size], strict=True):
                    order.create_order.order_id = order_id
                yield ExecuteCommandsRequest(commands=orders)

        placed = 0
        async for answer in self._bulk.ExecuteCommands(messages(), timeout=CALL_SECONDS):
            placed += sum(outcome.HasField("create_order") for outcome in answer.outcomes)
        if placed != len(order_ids):
            raise LoadFailed(f"of {len(order_ids)} orders {placed} were placed")
        self.position += placed

    @property
    def create_order(self) -> Call:
        """CreateOrder."""
        target = Target(self._addresses, CREATE_ORDER, [self._order.SerializeToString()])

        async def prepare(_calls: int) -> Target:
            return target

        return Call(target.requests[0], prepare, self.verify)

    def update_status(self, updates: Updates) -> Call:
        """UpdateOrderStatus with the version that the order has, of orders that are there already."""

        async def prepare(calls: int) -> Target:
            await updates.stock(self, calls)
            return Target(self._addresses, UPDATE_STATUS, updates.take(calls))

        return Call(updates.sample, prepare, self.verify)

    @property
    def bulk(self) -> Target:
        """ExecuteCommands: messages of 64 CreateOrder commands."""
        message = ExecuteCommandsRequest(commands=[Command(create_order=self._order)] * COMMANDS_PER_MESSAGE)
        return Target(self._addresses, EXECUTE_COMMANDS, [message.SerializeToString()])

    async def verify(self, _result: LoadResult, calls: int) -> None:
        """Each call has added its event to the log, and nothing else has."""
        await self.verify_added(calls)

    async def verify_added(self, events: int) -> None:
        """The log has so many events more than before.

        Raises:
            LoadFailed: it has not.
        """
        self.position += events
        found = await self.head()
        if found != self.position:
            raise LoadFailed(f"after {events} commands the log ends at {found}, not at {self.position}")


class Updates:
    """A supply of status updates, no two alike, each with the version that its order will have."""

    def __init__(self, steps: int = len(_STEPS)) -> None:
        """Take each order through so many `steps`, 1 to 5."""
        self._steps = _STEPS[:steps]
        self._supply: deque[bytes] = deque()
        self._prefix = uuid4().hex
        self._orders = 0
        self.sample = self._request(0, 0)

    async def stock(self, commands: CommandSide, updates: int) -> None:
        """Place orders until there are `updates` to make."""
        while len(self._supply) < updates:
            numbers = range(self._orders, self._orders + _ORDERS_AT_ONCE)
            self._orders += _ORDERS_AT_ONCE
            await commands.place_orders([self._order_id(number) for number in numbers])
            self._supply.extend(self._request(number, step) for step in range(len(self._steps)) for number in numbers)

    def take(self, updates: int) -> list[bytes]:
        """The next of them, as requests."""
        return [self._supply.popleft() for _ in range(updates)]

    def _order_id(self, number: int) -> str:
        return f"{self._prefix}-{number:08}"

    def _request(self, number: int, step: int) -> bytes:
        return UpdateOrderStatusRequest(
            order_id=self._order_id(number), status=self._steps[step], expected_version=step + 1
        ).SerializeToString()
