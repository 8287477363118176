"""The query side, as a client sees it."""

from __future__ import annotations

from time import monotonic

import grpc

from bench.commands import CALL_SECONDS
from bench.load import LoadFailed, LoadResult, Target
from bench.pairs import Call
from orderstream.orders.v1.commands_pb2 import CreateOrderResponse
from orderstream.orders.v1.queries_pb2 import GetOrderRequest
from orderstream.orders.v1.queries_pb2_grpc import OrderQueryServiceStub

GET_ORDER = "/orderstream.orders.v1.OrderQueryService/GetOrder"


class QuerySide:
    """The query server."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self._address = address
        self._orders = OrderQueryServiceStub(channel)

    async def get_order(self, placed: CreateOrderResponse) -> Call:
        """The call that reads this order, which is then in the cache."""
        request = GetOrderRequest(order_id=placed.order.order_id)
        await self.wait_until_visible(placed)
        answer = await self._orders.GetOrder(request, timeout=CALL_SECONDS)
        shortest = answer.order.ByteSize()
        target = Target([self._address], GET_ORDER, [request.SerializeToString()])

        async def prepare(_calls: int) -> Target:
            return target

        async def verify(result: LoadResult, calls: int) -> None:
            if result.answer_bytes < calls * shortest:
                raise LoadFailed(f"{calls} answers had {result.answer_bytes} bytes, an order has {shortest}")

        return Call(target.requests[0], prepare, verify)

    async def wait_until_visible(self, placed: CreateOrderResponse) -> float:
        """Wait until a query has answered with the order in it; returns the seconds from the call to the answer."""
        request = GetOrderRequest(order_id=placed.order.order_id, consistency_token=placed.consistency_token)
        request.max_wait.FromSeconds(int(CALL_SECONDS))
        begin = monotonic()
        await self._orders.GetOrder(request, timeout=CALL_SECONDS)
        return monotonic() - begin
