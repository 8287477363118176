"""What every server does around its services, over a real socket."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from cqrs.errors import ConfigurationError, InvalidRequest, Rejected, ShuttingDown, VersionConflict, Violation
from cqrs.serving.deadlines import remaining_seconds
from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Readiness
from cqrs.serving.metrics import ServerMetrics
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest, DescribeLogResponse, ReadLogRequest
from orderstream_client import OrderstreamCallError, decode_error
from tests.integration.serving.support import (
    Service,
    health_check,
    health_watch,
    http_get,
    raw_call,
    running,
    settings,
    until,
)


async def refused(call: Awaitable[Any]) -> OrderstreamCallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return decode_error(caught.value)


def raising(error: Exception) -> Callable[[], Awaitable[DescribeLogResponse]]:
    async def describe() -> DescribeLogResponse:
        raise error

    return describe


class Held:
    """Calls that wait until the test lets them go."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.entered = 0

    async def describe(self) -> DescribeLogResponse:
        self.entered += 1
        await self.release.wait()
        return DescribeLogResponse(position=7)


def test_a_call_is_answered() -> None:
    async def scenario() -> None:
        async with running() as run:
            assert (await run.stub.DescribeLog(DescribeLogRequest())).position == 7

    asyncio.run(scenario())


def test_a_stream_is_answered_chunk_by_chunk() -> None:
    async def scenario() -> None:
        async with running() as run:
            assert len([chunk async for chunk in run.stub.ReadLog(ReadLogRequest(from_position=1))]) == 2

    asyncio.run(scenario())


def test_a_service_error_reaches_the_client_with_reason_and_metadata() -> None:
    async def scenario() -> None:
        async with running(Service(raising(VersionConflict("o-1", 3, 5)))) as run:
            error = await refused(run.stub.DescribeLog(DescribeLogRequest()))
            assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
            assert error.metadata == {"aggregate_id": "o-1", "expected_version": "3", "current_version": "5"}

    asyncio.run(scenario())


def test_an_error_in_the_middle_of_a_stream_reaches_the_client_after_the_chunks_before_it() -> None:
    async def scenario() -> None:
        service = Service()
        service.fail_stream = Rejected(grpc.StatusCode.FAILED_PRECONDITION, "NOT_NOW", "not now")
        async with running(service) as run:
            call = run.stub.ReadLog(ReadLogRequest())
            for _ in range(2):
                await call.read()
            assert (await refused(call.read())).reason == "NOT_NOW"

    asyncio.run(scenario())


def test_every_violation_of_a_malformed_request_reaches_the_client() -> None:
    violations = [Violation(f"items[{index}].sku", "must have 1 to 64 characters") for index in range(30)]

    async def scenario() -> None:
        async with running(Service(raising(InvalidRequest(violations)))) as run:
            error = await refused(run.stub.DescribeLog(DescribeLogRequest()))
            assert [tuple(violation) for violation in error.violations] == [
                tuple(violation) for violation in violations
            ]

    asyncio.run(scenario())


def test_more_violations_than_trailers_can_carry_are_counted_instead_of_losing_the_error() -> None:
    violations = [Violation(f"items[{index}].sku", "ü" * 300) for index in range(2_000)]

    async def scenario() -> None:
        async with running(Service(raising(InvalidRequest(violations)))) as run:
            error = await refused(run.stub.DescribeLog(DescribeLogRequest()))
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert error.violations[0].field == "items[0].sku"
            told = len(error.violations) - 1
            assert error.violations[-1].description.startswith(f"and {2_000 - told} more violations")

    asyncio.run(scenario())


def test_a_defect_is_answered_with_an_incident_id_that_the_log_has_and_without_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with running(Service(raising(RuntimeError("the password is hunter2")))) as run:
            error = await refused(run.stub.DescribeLog(DescribeLogRequest()))
            assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
            assert "hunter2" not in error.message
            assert error.metadata["incident_id"] in caplog.text
            assert "hunter2" in caplog.text

    asyncio.run(scenario())


def test_bytes_that_are_no_message_are_an_invalid_request() -> None:
    async def scenario() -> None:
        async with running() as run:
            for path in ("DescribeLog", "ReadLog"):
                call = raw_call(run.channel, f"/orderstream.events.v1.EventService/{path}")
                error = await refused(call(b"\xff\xff\xff"))
                assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")

    asyncio.run(scenario())


def test_a_message_over_the_limit_is_refused_and_the_server_goes_on() -> None:
    async def scenario() -> None:
        async with running(max_message_bytes=65_536) as run:
            call = raw_call(run.channel, "/orderstream.events.v1.EventService/DescribeLog")
            assert (await refused(call(bytes(5_000_000)))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await run.stub.DescribeLog(DescribeLogRequest())).position == 7

    asyncio.run(scenario())


def test_an_unknown_method_is_unimplemented() -> None:
    async def scenario() -> None:
        async with running() as run:
            error = await refused(raw_call(run.channel, "/orderstream.events.v1.EventService/Nothing")(b""))
            assert error.code is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(scenario())


def test_each_call_of_a_burst_is_answered_or_refused_with_a_reason_and_none_is_cancelled() -> None:
    async def scenario() -> None:
        async with running(max_concurrent_calls=5) as run:
            outcomes = await asyncio.gather(
                *(run.stub.DescribeLog(DescribeLogRequest()) for _ in range(4000)), return_exceptions=True
            )
            errors = [decode_error(each) for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
            assert {error.reason for error in errors} <= {"OVERLOADED"}
            assert len(errors) < len(outcomes)

    asyncio.run(scenario())


def test_a_refused_call_does_not_keep_its_request() -> None:
    """A client with bad requests could fill the memory: what is in a cycle waits for the collector."""

    class WorkedOn:
        """Messages take no weak references; this stands beside one in the frame."""

    kept: list[weakref.ref[WorkedOn]] = []

    async def refuse() -> DescribeLogResponse:
        worked_on = WorkedOn()
        kept.append(weakref.ref(worked_on))
        raise InvalidRequest([Violation("field", "is wrong")])

    async def scenario() -> None:
        async with running(Service(refuse)) as run:
            gc.disable()
            try:
                for _ in range(5):
                    await refused(run.stub.DescribeLog(DescribeLogRequest()))
                await until(lambda: [reference() for reference in kept] == [None] * 5)
            finally:
                gc.enable()

    asyncio.run(scenario())


def test_a_metrics_port_that_is_taken_is_refused_before_anything_is_served() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            server = GrpcServer(settings(metrics_listen=address), metrics=ServerMetrics(), readiness=Readiness())
            with pytest.raises(ConfigurationError, match=address):
                await server.start()
            with pytest.raises(grpc.aio.AioRpcError):
                async with grpc.aio.insecure_channel(server.address) as channel:
                    await health_check(channel, "")

    asyncio.run(scenario())


def test_a_call_over_the_limit_is_refused_at_once_and_the_others_are_answered() -> None:
    async def scenario() -> None:
        held = Held()
        async with running(Service(held.describe), max_concurrent_calls=2) as run:
            calls = [asyncio.ensure_future(run.stub.DescribeLog(DescribeLogRequest())) for _ in range(2)]
            await until(lambda: held.entered == 2)
            error = await refused(run.stub.DescribeLog(DescribeLogRequest(), timeout=1))
            assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert error.retry_after == pytest.approx(0.1)
            held.release.set()
            assert [(await call).position for call in calls] == [7, 7]
            assert (await run.stub.DescribeLog(DescribeLogRequest())).position == 7

    asyncio.run(scenario())


def test_a_cancelled_call_makes_room_for_the_next() -> None:
    async def scenario() -> None:
        held = Held()
        async with running(Service(held.describe), max_concurrent_calls=1) as run:
            call = run.stub.DescribeLog(DescribeLogRequest())
            waiting = asyncio.ensure_future(call.code())
            await until(lambda: held.entered == 1)
            call.cancel()
            await waiting
            method = run.metrics.method("/orderstream.events.v1.EventService/DescribeLog", "unary")
            await until(lambda: method.count(grpc.StatusCode.CANCELLED) == 1)
            held.release.set()
            assert (await run.stub.DescribeLog(DescribeLogRequest())).position == 7

    asyncio.run(scenario())


def test_a_stream_whose_client_goes_away_is_closed() -> None:
    async def scenario() -> None:
        async with running() as run:
            call = run.stub.ReadLog(ReadLogRequest())
            await call.read()
            call.cancel()
            async with asyncio.timeout(5):
                await run.service.stream_closed.wait()

    asyncio.run(scenario())


def test_a_passed_deadline_ends_the_call_and_is_counted_as_such() -> None:
    async def scenario() -> None:
        held = Held()
        async with running(Service(held.describe)) as run:
            error = await refused(run.stub.DescribeLog(DescribeLogRequest(), timeout=0.1))
            assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
            method = run.metrics.method("/orderstream.events.v1.EventService/DescribeLog", "unary")
            await until(lambda: method.count(grpc.StatusCode.DEADLINE_EXCEEDED) == 1)

    asyncio.run(scenario())


def test_an_implementation_can_see_how_long_it_may_take() -> None:
    seen: list[float | None] = []

    class Watching(Service):
        async def DescribeLog(self, request: DescribeLogRequest, context: Any) -> DescribeLogResponse:
            seen.append(remaining_seconds(context))
            return DescribeLogResponse()

    async def scenario() -> None:
        async with running(Watching()) as run:
            await run.stub.DescribeLog(DescribeLogRequest(), timeout=20)
            await run.stub.DescribeLog(DescribeLogRequest())

    asyncio.run(scenario())
    assert seen[0] is not None
    assert 15 < seen[0] < 21  # gRPC rounds a timeout up on its way
    assert seen[1] is None


def test_a_drain_lets_running_calls_finish_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        held = Held()
        async with running(Service(held.describe)) as run:
            first = asyncio.ensure_future(run.stub.DescribeLog(DescribeLogRequest()))
            await until(lambda: held.entered == 1)
            draining = asyncio.ensure_future(run.server.drain())
            await run.server.draining.wait()
            error = await refused(run.stub.DescribeLog(DescribeLogRequest()))
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert error.message == ShuttingDown().message
            assert not draining.done()
            held.release.set()
            assert (await first).position == 7
            await draining

    asyncio.run(scenario())


def test_a_drain_ends_in_time_even_if_calls_and_watches_do_not() -> None:
    async def scenario() -> None:
        held = Held()
        async with running(Service(held.describe), drain_seconds=0.3) as run:
            stuck = asyncio.ensure_future(refused(run.stub.DescribeLog(DescribeLogRequest())))
            watch = health_watch(run.channel)
            await watch.read()
            await until(lambda: held.entered == 1)
            async with asyncio.timeout(3):
                await run.server.drain()
            assert (await stuck).code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)

    asyncio.run(scenario())


def test_a_drain_tells_whoever_watches_its_health_and_ends_the_watch() -> None:
    async def scenario() -> None:
        async with running() as run:
            watch = health_watch(run.channel)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            await run.server.drain()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await watch.read() is grpc.aio.EOF

    asyncio.run(scenario())


def test_health_follows_the_components() -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

    async def scenario() -> None:
        async with running() as run:
            run.readiness.require("write DB", "opening")

            async def status(service: str) -> int:
                return (await health_check(run.channel, service)).status

            watch = health_watch(run.channel, "orderstream.events.v1.EventService")
            assert (await watch.read()).status == not_serving
            assert [await status(""), await status("orderstream.events.v1.EventService")] == [not_serving] * 2
            run.readiness.ready("write DB")
            assert (await watch.read()).status == serving
            assert [await status(""), await status("orderstream.events.v1.EventService")] == [serving] * 2
            run.readiness.not_ready("write DB", "the disk is full")
            assert (await watch.read()).status == not_serving
            assert (await refused(health_check(run.channel, "x"))).code.name == "NOT_FOUND"
            unknown = health_watch(run.channel, "x")
            assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            watch.cancel()
            unknown.cancel()

    asyncio.run(scenario())


def test_metrics_count_and_time_calls_by_method_and_code() -> None:
    async def scenario() -> None:
        async with running() as run:
            for _ in range(3):
                await run.stub.DescribeLog(DescribeLogRequest())
            run.service.describe = raising(VersionConflict("o-1", 1, 2))
            await refused(run.stub.DescribeLog(DescribeLogRequest()))
            assert run.server.metrics_address is not None
            status, text = await http_get(run.server.metrics_address, "/metrics")
            labels = 'grpc_method="DescribeLog",grpc_service="orderstream.events.v1.EventService",grpc_type="unary"'
            assert status == 200
            assert f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 3.0' in text
            assert f'grpc_server_handled_total{{grpc_code="Aborted",{labels}}} 1.0' in text
            assert f"grpc_server_started_total{{{labels}}} 4.0" in text
            assert f"grpc_server_handling_seconds_count{{{labels}}} 4.0" in text
            assert "process_resident_memory_bytes" in text
            accept = "Accept: application/openmetrics-text; version=1.0.0\r\n"
            assert (await http_get(run.server.metrics_address, "/metrics", head=accept))[1].endswith("# EOF\n")

    asyncio.run(scenario())


def test_healthz_tells_the_state_of_each_component() -> None:
    async def scenario() -> None:
        async with running() as run:
            run.readiness.require("write DB", "opening")
            run.readiness.require("broker", "not connected", essential=False)
            assert run.server.metrics_address is not None
            status, text = await http_get(run.server.metrics_address, "/healthz")
            assert (status, "write DB: not ready: opening" in text) == (503, True)
            run.readiness.ready("write DB")
            status, text = await http_get(run.server.metrics_address, "/healthz")
            assert (status, "broker: not ready: not connected (not essential)" in text) == (200, True)
            assert (await http_get(run.server.metrics_address, "/elsewhere"))[0] == 404

    asyncio.run(scenario())


def test_the_ready_file_tells_the_addresses_while_the_server_serves(tmp_path: Path) -> None:
    file = tmp_path / "run" / "command.json"

    async def scenario() -> None:
        async with running(ready_file=file) as run:
            told = json.loads(file.read_text())
            assert told == {"pid": os.getpid(), "grpc": run.server.address, "metrics": run.server.metrics_address}
        assert not file.exists()

    asyncio.run(scenario())


def test_the_metrics_endpoint_can_be_switched_off() -> None:
    async def scenario() -> None:
        async with running(metrics_listen="") as run:
            assert run.server.metrics_address is None

    asyncio.run(scenario())


def test_an_address_that_is_in_use_is_refused_by_name() -> None:
    async def scenario() -> None:
        async with running() as run:
            for taken in ({"listen": run.server.address}, {"metrics_listen": run.server.metrics_address}):
                second = GrpcServer(settings(**taken), metrics=ServerMetrics(), readiness=Readiness())
                with pytest.raises(ConfigurationError, match=next(iter(taken.values()))):
                    await second.start()
                await second.drain()

    asyncio.run(scenario())


def test_an_implementation_that_is_not_async_is_refused_when_it_is_added() -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)

    async def scenario() -> None:
        server = GrpcServer(settings(), metrics=ServerMetrics(), readiness=Readiness())
        with pytest.raises(TypeError, match="async"):
            server.add(lambda to: to.add_registered_method_handlers("x.Y", {"Z": handler}), "x.Y")

    asyncio.run(scenario())


def test_generic_handlers_answer_bytes_with_bytes() -> None:
    async def echo(request: bytes, _context: Any) -> bytes:
        return request

    async def scenario() -> None:
        handler = grpc.method_handlers_generic_handler("x.Y", {"Echo": grpc.unary_unary_rpc_method_handler(echo)})
        metrics = ServerMetrics()
        server = GrpcServer(settings(), metrics=metrics, readiness=Readiness())
        server.add_generic(handler, "x.Y")
        await server.start()
        async with grpc.aio.insecure_channel(server.address) as channel:
            assert [await raw_call(channel, "/x.Y/Echo")(b"abc") for _ in range(2)] == [b"abc"] * 2
        await server.drain()
        assert metrics.method("/x.Y/Echo", "unary").count(grpc.StatusCode.OK) == 2

    asyncio.run(scenario())


def test_a_drain_cuts_off_who_is_connected_to_the_metrics_and_never_reads() -> None:
    async def scenario() -> None:
        async with running() as run:
            assert run.server.metrics_address is not None
            host, _, port = run.server.metrics_address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            await asyncio.sleep(0.05)
            async with asyncio.timeout(3):
                await run.server.drain()
                with suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()

    asyncio.run(scenario())
