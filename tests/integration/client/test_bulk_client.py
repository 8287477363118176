"""`OrderstreamClient.execute` against real command servers, through networks that break."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Readiness
from cqrs.serving.metrics import ServerMetrics
from domain.order import CONFIRMED
from orderstream.commands.v1.command_service_pb2 import (
    CommandOutcome,
    ExecuteCommandsRequest,
    ExecuteCommandsResponse,
)
from orderstream.orders.v1.commands_pb2 import CancelOrderRequest, CreateOrderResponse, UpdateOrderStatusRequest
from orderstream.orders.v1.queries_pb2 import GetOrderRequest
from orderstream_client import (
    BulkOptions,
    CommandResult,
    OrderstreamCallError,
    OrderstreamClient,
    RetryPolicy,
    connect,
)
from tests.integration.client.proxy import proxy_to
from tests.integration.command_server.rig import command_server, order, run
from tests.integration.logs import assert_one_gapless_chain
from tests.integration.serving.support import settings

STUBBORN = RetryPolicy(max_attempts=1_000, first_backoff_seconds=0.02, longest_backoff_seconds=0.2)
PATIENT = BulkOptions(patience_seconds=60)


@asynccontextmanager
async def client_of(address: str, retry: RetryPolicy | None = None, **values: Any) -> AsyncIterator[OrderstreamClient]:
    client = OrderstreamClient(connect(address), connect(address), retry=retry, **values)
    try:
        yield client
    finally:
        await client.close()


async def execute(client: OrderstreamClient, commands: Any, **options: Any) -> list[CommandResult]:
    return [result async for result in client.execute(commands, **options)]


def orders(count: int, prefix: str = "o") -> list[Any]:
    return [order(f"{prefix}-{number}") for number in range(count)]


def orders_and_confirmations(count: int) -> Iterator[Any]:
    """Each order is confirmed at its first version: out of order, it would be refused."""
    for number in range(count):
        yield order(f"o-{number}")
        yield UpdateOrderStatusRequest(order_id=f"o-{number}", status=CONFIRMED, expected_version=1)


def assert_in_order(results: Sequence[CommandResult], count: int) -> None:
    assert len(results) == 2 * count
    for number in range(count):
        created, confirmed = (result.unwrap() for result in results[2 * number : 2 * number + 2])
        assert (created.order.order_id, created.version) == (f"o-{number}", 1)
        assert (confirmed.order.order_id, confirmed.version) == (f"o-{number}", 2)


def test_results_come_in_order_typed_and_refusals_do_not_raise(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server, client_of(server.address) as client:
            await server.register()
            commands: list[Any] = [
                order("o-1", request_id="mine"),
                CancelOrderRequest(order_id="o-9", reason="lost"),
                UpdateOrderStatusRequest(order_id="o-1", status=CONFIRMED, expected_version=7),
                UpdateOrderStatusRequest(order_id="o-1", status=CONFIRMED),
            ]
            created, cancelled, conflict, confirmed = await execute(client, commands)
            assert created.unwrap().order.order_id == "o-1"
            assert created.request is commands[0]
            assert (created.replayed, created.sent) == (False, 1)
            assert cancelled.error is not None
            assert (cancelled.error.code, cancelled.error.reason) == (grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND")
            with pytest.raises(OrderstreamCallError) as caught:
                conflict.unwrap()
            assert caught.value.metadata["current_version"] == "1"
            assert confirmed.response.version == 2
            assert client.token == confirmed.response.consistency_token
            ids = [command.request_id for command in commands]
            assert ids[0] == "mine"
            assert len(set(ids)) == 4
            again = await execute(client, commands)
            assert [result.replayed for result in again] == [True, False, False, True]
            assert again[0].response == created.response

    run(scenario)


def test_what_the_options_say_of_metadata_is_in_the_events(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server, client_of(server.address) as client:
            await server.register()
            await execute(client, orders(3), options=BulkOptions(metadata=(("x-actor", "importer"),)))
            assert [event.actor for event in await server.read_log()] == [None, "importer", "importer", "importer"]
            with pytest.raises(OrderstreamCallError) as caught:
                await execute(client, orders(3), options=BulkOptions(metadata=(("x-actor", "a" * 200),)))
            assert caught.value.reason == "INVALID_REQUEST"

    run(scenario)


def test_through_connections_that_are_cut_at_random_each_command_takes_effect_once_and_in_order(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        count = 1500
        async with command_server(tmp_path) as server, proxy_to(server.address) as proxy:
            await server.register()
            async with client_of(proxy.address, STUBBORN) as client:
                proxy.cut_as_it_passes(50_000, 250_000)
                results = await execute(client, orders_and_confirmations(count), options=PATIENT)
            assert proxy.cuts >= 3
            assert_in_order(results, count)
            assert any(result.sent > 1 for result in results)
            log = await server.read_log()
            assert_one_gapless_chain(log)
            assert len(log) == 1 + 2 * count

    run(scenario)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_is_killed_or_stopped_and_started_again_costs_nothing(
    tmp_path: Path, how: signal.Signals
) -> None:
    async def scenario() -> None:
        count = 800
        async with command_server(tmp_path) as first:
            await first.register()
            address = first.address
            async with (
                client_of(address, STUBBORN) as client,
                aclosing(client.execute(orders_and_confirmations(count), options=PATIENT)) as executing,
            ):
                results = [await anext(executing) for _ in range(300)]
                first.process.send_signal(how)
                await first.process.wait()
                async with command_server(tmp_path, listen=address) as second:
                    results += [result async for result in executing]
                    log = await second.read_log()
            assert_in_order(results, count)
            assert_one_gapless_chain(log)
            assert len(log) == 1 + 2 * count

    run(scenario)


def test_the_commands_are_read_no_further_ahead_than_the_options_allow(tmp_path: Path) -> None:
    async def scenario() -> None:
        taken = 0

        def commands() -> Iterator[Any]:
            nonlocal taken
            for each in orders(5_000):
                taken += 1
                yield each

        async with command_server(tmp_path) as server, client_of(server.address) as client:
            await server.register()
            options = BulkOptions(commands_in_message=10, messages_ahead=3)
            async with aclosing(client.execute(commands(), options=options)) as results:
                await anext(results)
                await asyncio.sleep(0.5)
                # Three messages are without results, or with some that we have not asked for.
                assert taken <= 40
                for _ in range(100):
                    await anext(results)
                assert 100 < taken <= 150
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) == 1
            assert len(await server.read_log()) <= 151

    run(scenario)


def test_of_an_asynchronous_source_a_command_is_sent_when_it_comes_and_not_when_its_message_is_full(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        answered = asyncio.Event()

        async def one_after_the_other() -> AsyncIterator[Any]:
            for each in orders(20):
                answered.clear()
                yield each
                await answered.wait()

        async with command_server(tmp_path) as server, client_of(server.address) as client:
            await server.register()
            seen = 0
            async with asyncio.timeout(30):
                async for result in client.execute(one_after_the_other()):
                    assert result.unwrap().order.order_id == f"o-{seen}"
                    seen += 1
                    answered.set()
            assert seen == 20

    run(scenario)


def test_what_the_commands_raise_is_raised_after_the_results_of_those_before(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield from orders(100)
        raise ZeroDivisionError

    def strange() -> Iterator[Any]:
        yield from orders(100)
        yield GetOrderRequest()

    async def slow() -> AsyncIterator[Any]:
        for each in orders(100):
            yield each
        raise ZeroDivisionError

    async def scenario() -> None:
        async with command_server(tmp_path) as server, client_of(server.address) as client:
            await server.register()
            sources: list[tuple[Callable[[], Any], type[Exception]]] = [
                (broken, ZeroDivisionError), (strange, TypeError), (slow, ZeroDivisionError),
            ]  # fmt: skip
            for source, error in sources:
                execution = client.execute(source())
                for _ in range(100):
                    await anext(execution)
                with pytest.raises(error):
                    await anext(execution)
            assert await execute(client, []) == []

    run(scenario)


def test_a_server_that_is_away_is_told_after_the_patience_and_never_asked_when_there_is_nothing_to_send() -> None:
    async def scenario() -> None:
        impatient = BulkOptions(patience_seconds=0.5)
        async with client_of("127.0.0.1:1", STUBBORN) as client:
            assert await execute(client, []) == []
            started = time.monotonic()
            with pytest.raises(OrderstreamCallError) as caught:
                await execute(client, orders(3), options=impatient)
            assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "")
            assert time.monotonic() - started < 20
        async with client_of("127.0.0.1:1", RetryPolicy(max_attempts=2, first_backoff_seconds=0.01)) as client:
            with pytest.raises(OrderstreamCallError):
                await execute(client, orders(3))

    run(scenario)


def test_a_stream_on_which_nothing_comes_back_is_given_up_for_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server, proxy_to(server.address) as proxy:
            await server.register()
            async with client_of(proxy.address, STUBBORN) as client:
                await execute(client, orders(3, "first"))
                proxy.answers_pass.clear()
                asyncio.get_running_loop().call_later(1.0, proxy.answers_pass.set)
                options = BulkOptions(patience_seconds=30, stall_seconds=0.3)
                results = await execute(client, orders(200), options=options)
            assert all(result.response is not None for result in results)
            assert results[0].sent > 1
            assert len(await server.read_log()) == 204
            proxy.answers_pass.clear()
            async with client_of(proxy.address, STUBBORN) as client:
                with pytest.raises(OrderstreamCallError) as caught:
                    await execute(client, orders(200), options=BulkOptions(patience_seconds=0.5, stall_seconds=0.2))
                assert caught.value.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            proxy.answers_pass.set()

    run(scenario)


def test_after_half_an_answer_only_the_commands_without_an_outcome_are_sent_again() -> None:
    received: list[list[str]] = []

    async def answer(requests: AsyncIterator[ExecuteCommandsRequest], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            names = [command.create_order.order_id for command in request.commands]
            received.append(names)
            answered = names[:3]
            outcome = CommandOutcome(create_order=CreateOrderResponse(version=1))
            yield ExecuteCommandsResponse(outcomes=[outcome] * len(answered[:1]))
            yield ExecuteCommandsResponse(outcomes=[outcome] * len(answered[1:]))
            if len(names) > 3:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async def scenario() -> None:
        server = GrpcServer(settings(metrics_listen=""), metrics=ServerMetrics(), readiness=Readiness())
        name = "orderstream.commands.v1.CommandService"
        handler = grpc.stream_stream_rpc_method_handler(
            answer, ExecuteCommandsRequest.FromString, ExecuteCommandsResponse.SerializeToString
        )
        server.add_generic(grpc.method_handlers_generic_handler(name, {"ExecuteCommands": handler}), name)
        await server.start()
        async with client_of(server.address, STUBBORN) as client:
            results = await execute(client, orders(7))
        await server.drain()
        assert [result.sent for result in results] == [1, 1, 1, 2, 2, 2, 3]
        assert [len(names) for names in received] == [7, 4, 1]
        assert received[2] == ["o-6"]

    run(scenario)
