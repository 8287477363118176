"""What is measured: the calls, how often, and how their effect is verified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from time import monotonic
from typing import NamedTuple

import grpc

from bench.echo_server import METHOD as ECHO
from bench.load import LoadClient, LoadFailed, LoadResult, Target
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest
from orderstream.customers.v1.commands_pb2_grpc import CustomerCommandServiceStub
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream.orders.v1.commands_pb2 import CreateOrderRequest, CreateOrderResponse
from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceStub
from orderstream.orders.v1.order_pb2 import OrderItem
from orderstream.orders.v1.queries_pb2 import GetOrderRequest
from orderstream.orders.v1.queries_pb2_grpc import OrderQueryServiceStub
from orderstream.types.v1.money_pb2 import Money

CREATE_ORDER = "/orderstream.orders.v1.OrderCommandService/CreateOrder"
GET_ORDER = "/orderstream.orders.v1.OrderQueryService/GetOrder"

CALL_SECONDS = 30.0
"""Deadline of the few calls that are made outside of the load."""

Verify = Callable[[LoadResult, int], Awaitable[None]]
"""Makes sure that a run of so many calls did what it should; raises LoadFailed."""


class Turns(NamedTuple):
    """How often and how long a call and the echo take turns."""

    rounds: int
    seconds: float
    """Of one turn, about."""


@dataclass
class Pair:
    """Runs of a call and of the echo with a request of the same size, in turn."""

    in_flight: int
    call: list[LoadResult] = field(default_factory=list)
    echo: list[LoadResult] = field(default_factory=list)

    def figures(self, name: str) -> dict[str, float]:
        """Medians over the rounds, by their names; the ratio is the median of each round's ratio."""
        figures = {}
        for who, runs in ((name, self.call), (f"{name}.echo", self.echo)):
            prefix = f"{who}.c{self.in_flight}"
            figures[f"{prefix}.calls_per_second"] = median(run.calls_per_second for run in runs)
            figures[f"{prefix}.p50_ms"] = median(run.p50_ms for run in runs)
            figures[f"{prefix}.p99_ms"] = median(run.p99_ms for run in runs)
        ratios = [a.calls_per_second / b.calls_per_second for a, b in zip(self.call, self.echo, strict=True)]
        figures[f"{name}.c{self.in_flight}.ratio_to_echo"] = median(ratios)
        return figures


async def measure_pair(
    client: LoadClient, echo_address: str, target: Target, verify: Verify, *, in_flight: int, turns: Turns
) -> Pair:
    """Measure `target` beside the echo, in turn, after a warm-up that does not count."""
    echo = Target(echo_address, ECHO, target.request)

    async def run(whom: Target, calls: int) -> LoadResult:
        result = await client.run(whom, calls, in_flight)
        if whom is target:
            await verify(result, calls)
        elif result.answer_bytes != calls * len(target.request):
            raise LoadFailed(f"the echo answered {result.answer_bytes} bytes to {calls} × {len(target.request)}")
        return result

    warm_up_calls = 20 * in_flight + 100
    planned = {
        whom: max(warm_up_calls, round((await run(whom, warm_up_calls)).calls_per_second * turns.seconds))
        for whom in (echo, target)
    }
    pair = Pair(in_flight)
    for _ in range(turns.rounds):
        pair.echo.append(await run(echo, planned[echo]))
        pair.call.append(await run(target, planned[target]))
    return pair


class CommandSide:
    """The command server, as a client sees it."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.position = 0
        """How many events the log must have by now."""
        self._log = EventServiceStub(channel)
        self._orders = OrderCommandServiceStub(channel)
        self._customers = CustomerCommandServiceStub(channel)
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
        # No ids: the server makes them, so that one request repeated creates an order each time.
        self.create_order = Target(address, CREATE_ORDER, self._order.SerializeToString())

    async def register_customer(self) -> None:
        """The customer whom all orders belong to."""
        await self._customers.RegisterCustomer(
            RegisterCustomerRequest(customer_id="bench-customer", name="Bench", email="bench@orderstream.example"),
            timeout=CALL_SECONDS,
        )
        self.position = await self._head()

    async def place_order(self) -> CreateOrderResponse:
        """One order."""
        response = await self._orders.CreateOrder(self._order, timeout=CALL_SECONDS)
        self.position += 1
        return response

    async def verify_created(self, _result: LoadResult, calls: int) -> None:
        """Each call has added its event to the log, and nothing else has."""
        self.position += calls
        found = await self._head()
        if found != self.position:
            raise LoadFailed(f"after {calls} commands the log ends at {found}, not at {self.position}")

    async def _head(self) -> int:
        return (await self._log.DescribeLog(DescribeLogRequest(), timeout=CALL_SECONDS)).position


class QuerySide:
    """The query server, as a client sees it."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self._address = address
        self._orders = OrderQueryServiceStub(channel)
        self._shortest_answer = 0

    async def get_order(self, placed: CreateOrderResponse) -> Target:
        """The call that reads this order, which is then in the cache."""
        request = GetOrderRequest(order_id=placed.order.order_id)
        await self.wait_until_visible(placed)
        answer = await self._orders.GetOrder(request, timeout=CALL_SECONDS)
        self._shortest_answer = answer.order.ByteSize()
        return Target(self._address, GET_ORDER, request.SerializeToString())

    async def verify_answered(self, result: LoadResult, calls: int) -> None:
        """Each answer had the order in it."""
        if result.answer_bytes < calls * self._shortest_answer:
            raise LoadFailed(f"{calls} answers had {result.answer_bytes} bytes, an order has {self._shortest_answer}")

    async def wait_until_visible(self, placed: CreateOrderResponse) -> float:
        """Wait until a query has answered with the order in it; returns the seconds from the call to the answer."""
        request = GetOrderRequest(order_id=placed.order.order_id, consistency_token=placed.consistency_token)
        request.max_wait.FromSeconds(int(CALL_SECONDS))
        begin = monotonic()
        await self._orders.GetOrder(request, timeout=CALL_SECONDS)
        return monotonic() - begin
