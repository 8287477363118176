"""The Python client against a real gRPC server that answers as the tests want."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest

from cqrs.errors import (
    HistoryChanged,
    InvalidRequest,
    Overloaded,
    ReadModelBehind,
    ServiceError,
    VersionConflict,
    Violation,
)
from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Readiness
from cqrs.serving.metrics import ServerMetrics
from orderstream.orders.v1.commands_pb2 import CancelOrderRequest, CancelOrderResponse
from orderstream.orders.v1.queries_pb2 import GetOrderRequest, GetOrderResponse
from orderstream_client import OrderstreamCallError, OrderstreamClient, RetryPolicy, connect, decode_error
from tests.integration.serving.support import settings

AnswerT = TypeVar("AnswerT")

FAST = RetryPolicy(max_attempts=4, first_backoff_seconds=0.01, longest_backoff_seconds=0.05)


class Script:
    """Answers the calls one after the other, and keeps the requests."""

    def __init__(self, *answers: ServiceError | str) -> None:
        self._answers = list(answers)
        self.requests: list[Any] = []

    async def answer(self, request: Any, kind: Callable[..., AnswerT]) -> AnswerT:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, ServiceError):
            raise answer
        return kind(consistency_token=answer)

    async def cancel_order(self, request: CancelOrderRequest, _context: Any) -> CancelOrderResponse:
        return await self.answer(request, CancelOrderResponse)

    async def get_order(self, request: GetOrderRequest, _context: Any) -> GetOrderResponse:
        return await self.answer(request, GetOrderResponse)


@asynccontextmanager
async def client_of(script: Script, **values: Any) -> AsyncIterator[OrderstreamClient]:
    cancel = grpc.unary_unary_rpc_method_handler(
        script.cancel_order, CancelOrderRequest.FromString, CancelOrderResponse.SerializeToString
    )
    get = grpc.unary_unary_rpc_method_handler(
        script.get_order, GetOrderRequest.FromString, GetOrderResponse.SerializeToString
    )
    server = GrpcServer(settings(metrics_listen=""), metrics=ServerMetrics(), readiness=Readiness())
    for service, method, handler in (
        ("OrderCommandService", "CancelOrder", cancel),
        ("OrderQueryService", "GetOrder", get),
    ):
        name = f"orderstream.orders.v1.{service}"
        server.add_generic(grpc.method_handlers_generic_handler(name, {method: handler}), name)
    await server.start()
    client = OrderstreamClient(connect(server.address), connect(server.address), **{"retry": FAST, **values})
    try:
        yield client
    finally:
        await client.close()
        await server.drain()


def test_a_command_is_repeated_with_the_same_request_id_until_it_is_answered() -> None:
    async def scenario() -> None:
        script = Script(Overloaded("busy"), Overloaded("busy"), "token")
        async with client_of(script) as client:
            assert (await client.command(client.orders.CancelOrder, CancelOrderRequest())).consistency_token == "token"
        ids = {request.request_id for request in script.requests}
        assert (len(script.requests), len(ids), "" in ids) == (3, 1, False)

    asyncio.run(scenario())


def test_each_command_has_a_request_id_of_its_own_and_one_that_is_given_is_kept() -> None:
    async def scenario() -> None:
        script = Script("a", "b", "c")
        async with client_of(script) as client:
            for request in (CancelOrderRequest(), CancelOrderRequest(), CancelOrderRequest(request_id="mine")):
                await client.command(client.orders.CancelOrder, request)
        ids = [request.request_id for request in script.requests]
        assert len(set(ids)) == 3
        assert ids[2] == "mine"

    asyncio.run(scenario())


def test_an_error_that_a_retry_does_not_change_is_raised_at_once() -> None:
    async def scenario() -> None:
        script = Script(VersionConflict("o-1", 1, 2))
        async with client_of(script) as client:
            with pytest.raises(OrderstreamCallError) as caught:
                await client.command(client.orders.CancelOrder, CancelOrderRequest())
        assert (caught.value.reason, caught.value.metadata["current_version"]) == ("VERSION_CONFLICT", "2")
        assert len(script.requests) == 1

    asyncio.run(scenario())


def test_retries_are_bounded_in_number() -> None:
    async def scenario() -> None:
        script = Script(*[ReadModelBehind("orders", 9, 1)] * 10)
        async with client_of(script) as client:
            with pytest.raises(OrderstreamCallError) as caught:
                await client.query(client.order_queries.GetOrder, GetOrderRequest())
        assert (caught.value.reason, len(script.requests)) == ("READ_MODEL_BEHIND", FAST.max_attempts)

    asyncio.run(scenario())


def test_retries_are_bounded_in_time() -> None:
    async def scenario() -> None:
        script = Script(*[ReadModelBehind("orders", 9, 1)] * 100)
        async with client_of(script, retry=RetryPolicy(max_attempts=100), timeout_seconds=0.5) as client:
            started = asyncio.get_running_loop().time()
            with pytest.raises(OrderstreamCallError):
                await client.query(client.order_queries.GetOrder, GetOrderRequest())
            assert asyncio.get_running_loop().time() - started < 5

    asyncio.run(scenario())


def test_a_query_carries_the_token_of_what_the_client_did_before() -> None:
    async def scenario() -> None:
        script = Script("after-command", "after-query", "after-second-query")
        async with client_of(script) as client:
            await client.command(client.orders.CancelOrder, CancelOrderRequest())
            await client.query(client.order_queries.GetOrder, GetOrderRequest())
            await client.query(client.order_queries.GetOrder, GetOrderRequest(consistency_token="mine"))
            assert client.token == "after-second-query"
        assert [request.consistency_token for request in script.requests[1:]] == ["after-command", "mine"]

    asyncio.run(scenario())


def test_a_request_object_that_is_used_again_carries_the_token_of_then_not_of_its_first_use() -> None:
    async def scenario() -> None:
        script = Script("first", "second", "third", "fourth")
        async with client_of(script) as client:
            polling = GetOrderRequest(order_id="o-1")
            for _ in range(2):
                await client.command(client.orders.CancelOrder, CancelOrderRequest())
                await client.query(client.order_queries.GetOrder, polling)
            assert polling == GetOrderRequest(order_id="o-1")
        assert [request.consistency_token for request in script.requests[1::2]] == ["first", "third"]

    asyncio.run(scenario())


def test_a_token_of_a_replaced_history_is_forgotten() -> None:
    async def scenario() -> None:
        script = Script("of the lost history", HistoryChanged("a", "b"), "new")
        async with client_of(script) as client:
            await client.command(client.orders.CancelOrder, CancelOrderRequest())
            with pytest.raises(OrderstreamCallError) as caught:
                await client.query(client.order_queries.GetOrder, GetOrderRequest())
            assert caught.value.reason == "HISTORY_CHANGED"
            await client.query(client.order_queries.GetOrder, GetOrderRequest())
        assert [request.consistency_token for request in script.requests[1:]] == ["of the lost history", ""]

    asyncio.run(scenario())


def test_a_server_that_is_away_is_unavailable_without_a_reason() -> None:
    async def scenario() -> None:
        channel = connect("127.0.0.1:1")
        client = OrderstreamClient(channel, channel, retry=RetryPolicy(max_attempts=2, first_backoff_seconds=0.01))
        with pytest.raises(OrderstreamCallError) as caught:
            await client.command(client.orders.CancelOrder, CancelOrderRequest())
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "")
        await client.close()

    asyncio.run(scenario())


def test_violations_and_the_time_to_wait_are_decoded() -> None:
    async def scenario() -> None:
        script = Script(InvalidRequest([Violation("reason", "must not be empty")]), *[Overloaded("busy")] * 4)
        async with client_of(script) as client:
            errors = []
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.orders.CancelOrder(CancelOrderRequest())
                errors.append(decode_error(caught.value))
        assert errors[0].violations == (("reason", "must not be empty"),)
        assert str(errors[0]) == "INVALID_ARGUMENT / INVALID_REQUEST: reason: must not be empty"
        assert errors[0].retry_after is None
        assert errors[1].retry_after == pytest.approx(0.1)

    asyncio.run(scenario())
