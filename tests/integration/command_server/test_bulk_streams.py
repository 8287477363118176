"""ExecuteCommands as a stream: flow control, fairness, and every way in which it can end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from orderstream.commands.v1.command_service_pb2 import Command, ExecuteCommandsRequest
from orderstream.commands.v1.command_service_pb2_grpc import CommandServiceStub
from orderstream.orders.v1.order_pb2 import OrderItem
from orderstream.types.v1.money_pb2 import Money
from orderstream_client.errors import OrderstreamCallError, decode_error
from tests.integration.command_server.rig import CommandServer, command_server, order, run
from tests.integration.logs import assert_one_gapless_chain


def orders(*names: str) -> ExecuteCommandsRequest:
    """One message."""
    return ExecuteCommandsRequest(commands=[Command(create_order=order(name, request_id=name)) for name in names])


def large_orders(message: int, count: int) -> ExecuteCommandsRequest:
    """`count` orders of about 10 KB each."""
    price = Money(currency_code="USD", units=10)
    items = [OrderItem(sku=f"book-{each}", name="A book " * 25, quantity=1, unit_price=price) for each in range(50)]
    commands = []
    for number in range(count):
        created = order(f"o-{message}-{number}")
        del created.items[:]
        created.items.extend(items)
        commands.append(Command(create_order=created))
    return ExecuteCommandsRequest(commands=commands)


async def ends_with(call: Any) -> OrderstreamCallError:
    """How a call ends that has no answers left."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return decode_error(caught.value)


async def settled_position(server: CommandServer) -> float:
    """The log's head, once it has stopped moving."""
    before = -1.0
    while (now := await server.metric("orderstream_log_head_position")) != before:
        before = now
        await asyncio.sleep(0.5)
    return now


def test_a_client_that_does_not_read_its_answers_is_held_and_costs_the_others_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            call = server.bulk.ExecuteCommands()

            async def send() -> None:
                for number in range(100):  # 50 MB
                    await call.write(large_orders(number, 50))
                await call.done_writing()

            sending = asyncio.create_task(send())
            held_at = await settled_position(server)
            # 8 messages, what gRPC has taken to be sent, and what the windows of HTTP/2 hold.
            assert held_at <= 1 + 30 * 50
            assert not sending.done()
            async with grpc.aio.insecure_channel(server.address) as channel:
                async for answer in CommandServiceStub(channel).ExecuteCommands(iter([orders("a", "b")])):
                    assert len(answer.outcomes) == 2
            outcomes = 0
            while (answer := await call.read()) is not grpc.aio.EOF:
                outcomes += len(answer.outcomes)
            await sending
            assert outcomes == 5000

    run(scenario)


def test_calls_are_not_refused_and_a_small_stream_comes_through_while_large_streams_send_as_fast_as_they_can(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        many = ExecuteCommandsRequest(commands=[Command(create_order=order())] * 300)

        async def flood(server: CommandServer) -> None:
            async def messages() -> AsyncIterator[ExecuteCommandsRequest]:
                while True:
                    yield many

            async with grpc.aio.insecure_channel(server.address) as channel:
                async for answer in CommandServiceStub(channel).ExecuteCommands(messages()):
                    assert not any(outcome.HasField("error") for outcome in answer.outcomes)

        async with command_server(tmp_path, max_queued_commands="400") as server:
            await server.register()
            floods = [asyncio.create_task(flood(server)) for _ in range(3)]
            await server.until("orderstream_log_head_position", 1500)
            small = 0
            async for answer in server.bulk.ExecuteCommands(iter([orders(f"small-{each}") for each in range(3)])):
                small += len(answer.outcomes)
            assert small == 3
            for number in range(3):
                await server.orders.CreateOrder(order(f"call-{number}"), timeout=30)
            for each in floods:
                assert not each.done()
                each.cancel()
            await asyncio.wait(floods)
            assert await server.metric("orderstream_commands_refused_total") == 0

    run(scenario)


def test_a_stream_with_a_megabyte_in_each_message_has_no_call_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        a_megabyte = large_orders(0, 100)
        for command in a_megabyte.commands:
            command.create_order.order_id = ""

        async def messages() -> AsyncIterator[ExecuteCommandsRequest]:
            while True:
                yield a_megabyte

        async with command_server(tmp_path) as server:
            await server.register()
            call = server.bulk.ExecuteCommands(messages())
            assert len((await call.read()).outcomes) > 0
            for number in range(3):
                await server.orders.CreateOrder(order(f"o-{number}"), timeout=30)
            assert await server.metric("orderstream_commands_refused_total") == 0
            call.cancel()

    run(scenario)


def test_calls_that_are_cancelled_in_the_middle_leave_the_bounds_and_the_log_of_the_server_as_they_were(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            for attempt in range(30):
                call = server.bulk.ExecuteCommands()
                for number in range(8):
                    await call.write(orders(*(f"o-{attempt}-{number}-{each}" for each in range(100))))
                if attempt % 3 == 1:
                    await call.done_writing()
                if attempt % 3 == 2:
                    await call.read()
                call.cancel()
            await settled_position(server)
            outcomes = 0
            messages = [orders(*(f"last-{number}-{each}" for each in range(1000))) for number in range(10)]
            async for answer in server.bulk.ExecuteCommands(iter(messages)):
                outcomes += len(answer.outcomes)
            assert outcomes == 10_000
            assert await server.metric("orderstream_commit_queue_commands") == 0
            assert_one_gapless_chain(await server.read_log())
            assert "never retrieved" not in server.log.read_text()
            assert "Traceback" not in server.log.read_text()

    run(scenario)


def test_the_streams_deadline_ends_it_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            call = server.bulk.ExecuteCommands(timeout=2)
            await call.write(orders("o-1"))
            assert len((await call.read()).outcomes) == 1
            assert (await ends_with(call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert (await server.orders.CreateOrder(order("o-2"))).version == 1
            assert [event.aggregate_id for event in await server.read_log()] == ["c-1", "o-1", "o-2"]

    run(scenario)


def test_a_drain_ends_an_idle_stream_with_shutting_down_and_the_process_with_status_zero(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            call = server.bulk.ExecuteCommands()
            await call.write(orders("o-1"))
            assert len((await call.read()).outcomes) == 1
            server.process.send_signal(signal.SIGTERM)
            error = await ends_with(call)
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert error.retry_after is not None
            assert await asyncio.wait_for(server.process.wait(), 15) == 0

    run(scenario)


def test_a_drain_answers_what_was_read_before_it_ends_the_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        go = tmp_path / "go"
        async with command_server(tmp_path, failpoints=f"store.before_commit=pause:2:{go}") as server:
            await server.register()
            call = server.bulk.ExecuteCommands()
            for number in range(3):
                await call.write(orders(f"o-{number}"))
            await asyncio.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            go.touch()
            for _ in range(3):
                (outcome,) = (await call.read()).outcomes
                assert outcome.create_order.version == 1
            assert (await ends_with(call)).reason == "SHUTTING_DOWN"
            assert await asyncio.wait_for(server.process.wait(), 15) == 0

    run(scenario)


def test_when_the_write_db_fails_the_stream_ends_and_nothing_behind_the_failure_takes_effect(tmp_path: Path) -> None:
    async def scenario() -> None:
        go = tmp_path / "go"
        failpoints = f"committer.before_answer=pause:2:{go},store.before_commit=raise:3:4"
        async with command_server(tmp_path, failpoints=failpoints, max_batch_commands="1") as server:
            await server.register()
            call = server.bulk.ExecuteCommands()
            for number in range(7):
                await call.write(orders(f"o-{number}"))
            go.touch()
            assert len((await call.read()).outcomes) == 1
            assert (await ends_with(call)).reason == "STORE_UNAVAILABLE"
            assert (await server.orders.CreateOrder(order("last"), timeout=10)).version == 1
            assert [event.aggregate_id for event in await server.read_log()] == ["c-1", "o-0", "last"]

    run(scenario)
