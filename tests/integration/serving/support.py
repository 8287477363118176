"""A real GrpcServer with a small service whose answers the tests choose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2

from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Readiness
from cqrs.serving.metrics import ServerMetrics
from cqrs.serving.settings import ServerSettings
from orderstream.events.v1.event_service_pb2 import (
    DescribeLogRequest,
    DescribeLogResponse,
    GetAggregateStateRequest,
    GetAggregateStateResponse,
    GetCausationTreeRequest,
    GetCausationTreeResponse,
    ReadAggregateRequest,
    ReadAggregateResponse,
    ReadLogRequest,
    ReadLogResponse,
    SubscribeRequest,
    SubscribeResponse,
)
from orderstream.events.v1.event_service_pb2_grpc import (
    EventServiceServicer,
    EventServiceStub,
    add_EventServiceServicer_to_server,
)

SERVICE = "orderstream.events.v1.EventService"

Context = grpc.aio.ServicerContext[Any, Any]


async def _describe() -> DescribeLogResponse:
    return DescribeLogResponse(position=7)


class _NotHere(EventServiceServicer):
    """The RPCs that no test of the chassis calls."""

    async def Subscribe(self, request: SubscribeRequest, context: Context) -> AsyncIterator[SubscribeResponse]:
        yield SubscribeResponse()

    async def GetAggregateState(self, request: GetAggregateStateRequest, context: Context) -> GetAggregateStateResponse:
        return GetAggregateStateResponse()

    async def GetCausationTree(self, request: GetCausationTreeRequest, context: Context) -> GetCausationTreeResponse:
        return GetCausationTreeResponse()


class Service(_NotHere):
    """EventService, as the test wants it."""

    def __init__(self, describe: Callable[[], Awaitable[DescribeLogResponse]] = _describe) -> None:
        self.describe = describe
        self.fail_stream: Exception | None = None
        self.stream_closed = asyncio.Event()

    async def DescribeLog(self, request: DescribeLogRequest, context: Context) -> DescribeLogResponse:
        return await self.describe()

    async def ReadLog(self, request: ReadLogRequest, context: Context) -> AsyncIterator[ReadLogResponse]:
        """Two chunks, then the error if there is one, else chunks until the caller goes away (from_position 1: two)."""
        try:
            yield ReadLogResponse()
            yield ReadLogResponse()
            if self.fail_stream is not None:
                raise self.fail_stream
            while request.from_position != 1:
                yield ReadLogResponse()
                await asyncio.sleep(0.01)
        finally:
            self.stream_closed.set()

    async def ReadAggregate(
        self, request: ReadAggregateRequest, context: Context
    ) -> AsyncIterator[ReadAggregateResponse]:
        yield ReadAggregateResponse()


class Running:
    """A server and what a test needs of it."""

    def __init__(self, server: GrpcServer, metrics: ServerMetrics, readiness: Readiness, service: Service) -> None:
        self.server = server
        self.metrics = metrics
        self.readiness = readiness
        self.service = service
        self.channel = grpc.aio.insecure_channel(server.address)
        self.stub = EventServiceStub(self.channel)


def settings(**values: Any) -> ServerSettings:
    return ServerSettings(**{"listen": "127.0.0.1:0", **values})


@asynccontextmanager
async def running(service: Service | None = None, /, **values: Any) -> AsyncIterator[Running]:
    """A started server with `Service`, on free ports. Drained at the end."""
    service = service or Service()
    metrics, readiness = ServerMetrics(), Readiness()
    server = GrpcServer(settings(**values), metrics=metrics, readiness=readiness)
    server.add(lambda to: add_EventServiceServicer_to_server(service, to), SERVICE)
    await server.start()
    run = Running(server, metrics, readiness, service)
    try:
        yield run
    finally:
        await run.channel.close()
        await server.drain()


def raw_call(channel: grpc.aio.Channel, path: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """A method whose request and response are bytes."""
    return channel.unary_unary(path)


def health_check(
    channel: grpc.aio.Channel, service: str
) -> grpc.aio.UnaryUnaryCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]:
    """Health.Check."""
    method: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    method = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return method(health_pb2.HealthCheckRequest(service=service))


def health_watch(channel: grpc.aio.Channel, service: str = "") -> Any:
    """Health.Watch."""
    method: grpc.aio.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    method = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return method(health_pb2.HealthCheckRequest(service=service))


async def http_get(address: str, path: str, *, head: str = "") -> tuple[int, str]:
    """Status and body of a GET."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    top, _, body = answer.partition("\r\n\r\n")
    return int(top.split(" ")[1]), body


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until the condition holds."""
    for _ in range(round(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"not within {seconds:g} s")
