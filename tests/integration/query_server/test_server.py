"""The query server as a whole: gRPC, broker, health, metrics."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import nats
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2
from pysqlite3 import dbapi2

from cqrs.broker.embedded import EmbeddedBroker
from cqrs.errors import SchemaMismatch
from cqrs.serving.stop import StopSignal
from cqrs.subjects import changes_subject, heartbeat_subject
from orderstream.customers.v1.queries_pb2 import GetCustomerRequest
from orderstream.customers.v1.queries_pb2_grpc import CustomerQueryServiceStub
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from orderstream.orders.v1.queries_pb2 import GetOrderRequest, GetOrderResponse, ListOrdersRequest
from orderstream.orders.v1.queries_pb2_grpc import OrderQueryServiceStub
from orderstream.projections.v1.notification_pb2 import ProjectionChanged
from orderstream.sales.v1.queries_pb2 import GetSalesDashboardRequest
from orderstream.sales.v1.queries_pb2_grpc import SalesQueryServiceStub
from orderstream.types.v1.freshness_pb2 import FreshnessState
from query_server.app import serve
from query_server.settings import QueryServerSettings
from tests.integration.query_server.read_db import EPOCH, ReadDb
from tests.integration.query_server.rig import token

NO_BROKER = "nats://127.0.0.1:1"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[ReadDb]:
    db = ReadDb(tmp_path / "read.db")
    yield db
    db.close()


class Server:
    """A running query server and its clients."""

    def __init__(self, channel: grpc.aio.Channel, metrics: str) -> None:
        self.orders = OrderQueryServiceStub(channel)
        self.customers = CustomerQueryServiceStub(channel)
        self.sales = SalesQueryServiceStub(channel)
        self.channel = channel
        self._metrics = metrics

    async def get(self, order_id: str = "o1", *, position: int = 0, seconds: float = 10) -> GetOrderResponse:
        request = GetOrderRequest(order_id=order_id)
        if position:
            request.consistency_token = token(position)
        return await self.orders.GetOrder(request, timeout=seconds)

    async def metric(self, name: str) -> float:
        """The value of a metric; `name` with its labels."""
        return (await self.metrics())[name]

    async def metrics(self) -> dict[str, float]:
        """All metrics: name with labels, and value."""
        url = f"http://{self._metrics}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def status(self) -> int:
        """What the health service says of the process."""
        check: Any = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return int((await check(health_pb2.HealthCheckRequest(), timeout=5)).status)

    async def becomes(self, status: int) -> None:
        """Wait until the health service says so."""
        await until(lambda: self._is(status))

    async def _is(self, status: int) -> bool:
        return await self.status() == status


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - asked from outside, as a client would
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(db_url: str, tmp_path: Path, *, nats_url: str = NO_BROKER, **settings: Any) -> AsyncIterator[Server]:
    ready_file = tmp_path / "ready.json"
    config = QueryServerSettings.model_validate(
        {"listen": "127.0.0.1:0", "read_db_url": db_url, "nats_url": nats_url, "ready_file": ready_file, **settings}
    )
    stop = StopSignal()
    process = asyncio.create_task(serve(config, stop))

    async def started() -> bool:
        if process.done():
            await process
        return ready_file.exists()

    await until(started)
    addresses = json.loads(ready_file.read_text())
    async with grpc.aio.insecure_channel(addresses["grpc"]) as channel:
        try:
            yield Server(channel, addresses["metrics"])
        finally:
            stop.set("the test is over")
            await process


def details(error: grpc.aio.AioRpcError, kind: type[Message]) -> Any:
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    message = kind()
    assert any(detail.Unpack(message) for detail in Status.FromString(raw).details)
    return message


def test_notifications_and_heartbeats_keep_the_cache_and_its_freshness_right(db: ReadDb, tmp_path: Path) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with (
            EmbeddedBroker(tmp_path / "nats") as broker,
            serving(db.url, tmp_path, nats_url=broker.url) as server,
        ):
            client = await nats.connect(broker.url)
            answer = GetOrderResponse()

            async def tell(change: ProjectionChanged) -> None:
                await client.publish(changes_subject("orderstream", "orders"), change.SerializeToString())
                heartbeat = LogHeartbeat(epoch=EPOCH, position=change.to_position)
                await client.publish(heartbeat_subject("orderstream"), heartbeat.SerializeToString())
                await client.flush()

            await server.becomes(health_pb2.HealthCheckResponse.SERVING)
            await until(lambda: connected(server))
            assert (await server.get()).order.version == 1
            assert (await server.get()).freshness.state == FreshnessState.FRESHNESS_STATE_UNKNOWN
            for version in range(2, 12):
                await tell(db.order("o1", version, version=version))
                answer = await server.get(position=version)
                assert answer.order.version == version
            await tell(db.order("o2", 12))
            answer = await server.get("o2", position=12)
            hits = await server.metric('orderstream_query_cache_hits_total{projection="orders"}')

            async def current() -> bool:
                nonlocal answer
                answer = await server.get()
                return answer.freshness.state == FreshnessState.FRESHNESS_STATE_CURRENT

            await until(current)
            assert answer.order.version == 11
            assert (answer.freshness.as_of_position, answer.freshness.log_position) == (12, 12)
            assert answer.consistency_token == token(12)
            assert await server.metric('orderstream_query_cache_hits_total{projection="orders"}') > hits
            assert await server.metric('orderstream_query_projection_position{projection="orders"}') == 12

            # Garbage on the subjects hurts nobody.
            await client.publish(changes_subject("orderstream", "orders"), b"\xff\xff")
            await client.publish(heartbeat_subject("orderstream"), b"\xff\xff")
            await client.flush()
            assert (await server.get()).order.version == 11

            # The broker goes: answers say that they may be stale, and changes show all the same.
            await client.close()
            await broker.stop()

            async def unknown() -> bool:
                answer = await server.get()
                assert answer.order.version in (11, 13)
                return answer.freshness.state == FreshnessState.FRESHNESS_STATE_UNKNOWN

            await until(unknown)
            db.order("o1", 13, version=13)
            answer = await server.get(position=13)
            assert answer.order.version == 13
            assert answer.freshness.HasField("stale_for")
            assert await server.status() == health_pb2.HealthCheckResponse.SERVING

            # It is back: notifications are followed again.
            async with EmbeddedBroker(tmp_path / "nats", port=broker.port):
                await until(lambda: connected(server))
                await server.get(position=13)
                client = await nats.connect(broker.url)
                flushes = await flushes_so_far(server)
                await tell(db.order("o1", 14, version=14))
                assert (await server.get(position=14)).order.version == 14
                await until(current)
                assert answer.freshness.as_of_position == 14
                assert await flushes_so_far(server) == flushes
                await client.close()

    asyncio.run(scenario())


async def flushes_so_far(server: Server) -> float:
    """How often the cache was flushed for want of a notification."""
    metrics = await server.metrics()
    return sum(
        metrics.get(f'orderstream_query_cache_flushes_total{{projection="orders",reason="{reason}"}}', 0)
        for reason in ("gap", "silence", "polled")
    )


async def connected(server: Server) -> bool:
    return await server.metric('orderstream_ready{component="broker"}') == 1


def test_errors_carry_their_reason_and_details(db: ReadDb, tmp_path: Path) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with serving(db.url, tmp_path) as server:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.get("nobody")
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            assert details(caught.value, ErrorInfo).reason == "ORDER_NOT_FOUND"

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.orders.ListOrders(ListOrdersRequest(page_size=1000, page_token="x"))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert [violation.field for violation in details(caught.value, BadRequest).field_violations] == [
                "page_size",
                "page_token",
            ]

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.orders.GetOrder(
                    GetOrderRequest(order_id="o1", consistency_token=token(5), max_wait=Duration(nanos=100_000_000))
                )
            assert caught.value.code() == grpc.StatusCode.ABORTED
            assert details(caught.value, ErrorInfo).reason == "READ_MODEL_BEHIND"
            assert details(caught.value, RetryInfo).retry_delay.nanos > 0

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.get(position=5, seconds=0.5)
            assert caught.value.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED)

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.customers.GetCustomer(GetCustomerRequest(customer_id="nobody"))
            assert details(caught.value, ErrorInfo).reason == "CUSTOMER_NOT_FOUND"

            raw: Any = server.channel.unary_unary("/orderstream.orders.v1.OrderQueryService/GetOrder")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(b"\xff\xff\xff")
            assert details(caught.value, ErrorInfo).reason == "INVALID_REQUEST"

            waiting = 'orderstream_query_waiting_calls{projection="orders"}'
            assert await server.metric(waiting) == 0

    asyncio.run(scenario())


def test_without_a_read_db_that_can_be_read_the_server_is_not_ready_and_recovers(db: ReadDb, tmp_path: Path) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with serving(db.url, tmp_path, poll_interval_seconds=0.05) as server:
            await server.becomes(health_pb2.HealthCheckResponse.SERVING)
            db.close()
            away = tmp_path / "away.db"
            db.file.rename(away)
            await server.becomes(health_pb2.HealthCheckResponse.NOT_SERVING)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.get()
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert details(caught.value, ErrorInfo).reason == "STORE_UNAVAILABLE"
            assert details(caught.value, RetryInfo).retry_delay.nanos > 0
            away.rename(db.file)
            await server.becomes(health_pb2.HealthCheckResponse.SERVING)
            assert (await server.get()).order.order_id == "o1"

    asyncio.run(scenario())


def test_a_locked_read_db_is_waited_for(db: ReadDb, tmp_path: Path) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        db.close()
        # The same library as the server's: two SQLites in one process do not see each other's locks.
        locker = dbapi2.connect(str(db.file), isolation_level=None)
        locker.execute("PRAGMA locking_mode = EXCLUSIVE")
        locker.execute("BEGIN EXCLUSIVE")
        async with serving(db.url, tmp_path, poll_interval_seconds=0.05) as server:
            assert await server.status() == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.get()
            assert details(caught.value, ErrorInfo).reason == "STORE_UNAVAILABLE"
            locker.execute("ROLLBACK")
            locker.close()
            await server.becomes(health_pb2.HealthCheckResponse.SERVING)
            assert (await server.get()).order.order_id == "o1"

    asyncio.run(scenario())


def test_a_read_db_without_its_schema_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    def start(file: Path) -> None:
        settings = QueryServerSettings.model_validate({"read_db_url": f"sqlite:///{file}", "listen": "127.0.0.1:0"})
        with pytest.raises(SchemaMismatch, match="orderstream db upgrade"):
            asyncio.run(serve(settings, StopSignal()))

    missing, empty = tmp_path / "missing.db", tmp_path / "empty.db"
    start(missing)
    assert not missing.exists()
    empty.touch()
    start(empty)


def test_the_dashboard_says_that_it_may_be_stale_when_nothing_is_heard_of_the_log(db: ReadDb, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(db.url, tmp_path) as server:
            for _ in range(2):
                answer = await server.sales.GetSalesDashboard(GetSalesDashboardRequest())
                assert answer.freshness.state == FreshnessState.FRESHNESS_STATE_UNKNOWN
                assert answer.freshness.HasField("stale_for")

    asyncio.run(scenario())
