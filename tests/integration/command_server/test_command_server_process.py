"""The command server as a process: killed at the worst moments, stopped in order, watched by an operator."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cqrs.broker.connection import connect_broker
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.errors import LogInUse
from cqrs.store.ownership import own_write_db
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest
from tests.integration.command_server.rig import command_server, order, run
from tests.integration.logs import assert_one_gapless_chain


def test_a_kill_after_the_commit_and_before_the_answer_leaves_one_effect_and_the_retry_is_told_the_truth(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        # Batch 1 registers the customer; the process dies when batch 2 is committed and nobody knows yet.
        async with command_server(tmp_path, failpoints="committer.before_answer=kill:2") as server:
            await server.register()
            calls = [server.orders.CreateOrder(order(request_id="r-1"), timeout=10) for _ in range(200)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(
                isinstance(outcome, grpc.aio.AioRpcError) and outcome.code() is grpc.StatusCode.UNAVAILABLE
                for outcome in outcomes
            )
            assert await server.process.wait() == -signal.SIGKILL
        async with command_server(tmp_path) as server:
            raw: Any = server.channel.unary_unary("/orderstream.orders.v1.OrderCommandService/CreateOrder")
            calls = [raw(order(request_id="r-1").SerializeToString()) for _ in range(200)]
            assert len(set(await asyncio.gather(*calls))) == 1
            for call in calls:
                assert ("x-idempotent-replayed", "true") in tuple(await call.trailing_metadata())
            log = await server.read_log()
            assert_one_gapless_chain(log)
            assert len(log) == 2

    run(scenario)


def test_a_kill_before_the_commit_leaves_nothing_and_the_retry_takes_effect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, failpoints="store.before_commit=kill:2") as server:
            await server.register()
            with pytest.raises(grpc.aio.AioRpcError):
                await server.orders.CreateOrder(order("o-1", request_id="r-1"))
            assert await server.process.wait() == -signal.SIGKILL
        async with command_server(tmp_path) as server:
            assert len(await server.read_log()) == 1
            call = server.orders.CreateOrder(order("o-1", request_id="r-1"))
            assert (await call).version == 1
            assert ("x-idempotent-replayed", "true") not in tuple(await call.trailing_metadata())

    run(scenario)


def test_a_stop_lets_the_running_command_finish_and_ends_with_status_zero(tmp_path: Path) -> None:
    async def scenario() -> None:
        go = tmp_path / "go"
        async with command_server(tmp_path, failpoints=f"store.before_commit=pause:2:{go}") as server:
            await server.register()
            running = server.orders.CreateOrder(order("o-1"), timeout=20)
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert not running.done()
            go.touch()
            assert (await running).version == 1
            assert await asyncio.wait_for(server.process.wait(), 15) == 0
        async with command_server(tmp_path) as server:
            assert len(await server.read_log()) == 2

    run(scenario)


def test_what_is_committed_during_a_stop_is_on_the_stream_when_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        go = tmp_path / "go"
        async with EmbeddedBroker(tmp_path / "jetstream") as broker:
            pause = f"store.before_commit=pause:2:{go}"
            async with command_server(tmp_path, nats_url=broker.url, failpoints=pause) as server:
                await server.register()
                await server.until("orderstream_relay_position", 1)
                running = server.orders.CreateOrder(order("o-1"), timeout=20)
                await asyncio.sleep(0.3)
                server.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.3)
                go.touch()
                assert (await running).version == 1
                assert await asyncio.wait_for(server.process.wait(), 15) == 0
            client = await connect_broker(broker.url, "reader")
            assert (await client.jetstream().stream_info("ORDERSTREAM")).state.last_seq == 2
            await client.close()

    run(scenario)


def test_a_prune_whose_commit_fails_is_tried_again_and_ends_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        # The first commit is the prune's: with outcomes kept for no time at all, there is something to prune at once.
        async with command_server(tmp_path) as server:
            await server.customers.RegisterCustomer(
                RegisterCustomerRequest(customer_id="c-1", name="Ada", email="a@b.c", request_id="r-1")
            )
        kept = {"request_id_days": "0.0000001"}
        async with command_server(tmp_path, failpoints="store.before_prune_commit=raise:1", **kept) as server:
            await server.until("orderstream_store_errors_total", 1)
            assert (await server.orders.CreateOrder(order("o-1"))).version == 1

    run(scenario)


def test_commands_are_accepted_without_a_broker_and_published_when_it_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker = EmbeddedBroker(tmp_path / "jetstream")
        await broker.start()
        port = broker.port
        async with command_server(tmp_path, nats_url=broker.url) as server:
            await server.register()
            await broker.stop()
            for number in range(20):
                await server.orders.CreateOrder(order(f"o-{number}"))
            health: Any = health_pb2_grpc.HealthStub(server.channel)
            answer = await health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            assert "broker" in await server.http("/healthz")
            async with EmbeddedBroker(tmp_path / "jetstream", port=port):
                await server.until("orderstream_relay_position", 21)

    run(scenario)


def test_a_second_command_server_on_the_same_write_db_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            with pytest.raises(LogInUse, match=str(server.process.pid)), own_write_db(f"sqlite:///{tmp_path}/write.db"):
                pass

    run(scenario)


def test_a_write_db_without_a_schema_is_refused_with_exit_code_78_and_the_command_that_mends_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "write.db").touch()
        with pytest.raises(AssertionError, match=r"(?s)status 78.*orderstream db upgrade"):
            async with command_server(tmp_path):
                pass

    run(scenario)


def test_what_an_operator_needs_is_in_the_metrics(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            await server.orders.CreateOrder(order("o-1"))
            with pytest.raises(grpc.aio.AioRpcError):
                await server.orders.CreateOrder(order("o-1"))
            text = await server.http("/metrics")
            for name in (
                "orderstream_commit_batch_commands_count 3.0",
                "orderstream_events_appended_total 2.0",
                "orderstream_log_head_position 2.0",
                'grpc_code="AlreadyExists"',
                "orderstream_commit_queue_commands 0.0",
                "orderstream_relay_lag_events",
            ):
                assert name in text, name
            ready = json.loads((tmp_path / "command.json").read_text())
            assert ready["pid"] == server.process.pid

    run(scenario)
