"""The projector as a process: killed at the worst moment, asked how it stands, started on nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cqrs.database.engine import open_engine
from orderstream.projections.v1.projection_service_pb2 import (
    ListProjectionsRequest,
    ListProjectionsResponse,
    ProjectionState,
    ProjectionStatus,
)
from orderstream.projections.v1.projection_service_pb2_grpc import ProjectionServiceStub
from projector.app import main
from readmodel.orders import OrdersProjection
from readmodel.sales import SalesProjection
from tests.integration.projection.read_db import assert_shows
from tests.integration.projection.world import PATIENCE_SECONDS, World, world
from tests.orders_history import random_history

ORDERS, SALES = OrdersProjection(), SalesProjection()
LIVE = ProjectionState.PROJECTION_STATE_LIVE
HALTED = ProjectionState.PROJECTION_STATE_HALTED


class ProjectorProcess:
    """A projector, seen through its ports."""

    def __init__(
        self, process: asyncio.subprocess.Process, addresses: dict[str, Any], channel: grpc.aio.Channel
    ) -> None:
        self.process = process
        self.addresses = addresses
        self.channel = channel

    async def projections(self) -> dict[str, ProjectionStatus]:
        stub: Any = ProjectionServiceStub(self.channel)
        response: ListProjectionsResponse = await stub.ListProjections(ListProjectionsRequest(), timeout=5)
        assert [status.name for status in response.projections] == ["orders", "sales"]
        return {status.name: status for status in response.projections}

    async def both(self, state: ProjectionState.ValueType, position: int) -> dict[str, ProjectionStatus]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = await self.projections()
                if all((status.state, status.position) == (state, position) for status in found.values()):
                    return found
                await asyncio.sleep(0.02)

    async def serving(self) -> bool:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def metrics(self) -> str:
        url = f"http://{self.addresses['metrics']}/metrics"
        return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())


async def start(w: World, **environment: str) -> tuple[asyncio.subprocess.Process, Path]:
    ready = w.folder / "ready.json"
    ready.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import sys; from projector.app import main; sys.exit(main(sys.argv[1:]))"),
        *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--ready-file", str(ready)),
        *("--nats-url", w.broker.url, "--command-server", w.event_service, "--batch-events", "100"),
        *("--confirm-log-seconds", "0"),
        *("--read-db-url", f"sqlite:///{w.folder / 'views' / 'read.db'}", "--stop-with-parent"),
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    return process, ready


@asynccontextmanager
async def projector(w: World) -> AsyncIterator[ProjectorProcess]:
    process, ready = await start(w)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not ready.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
        addresses = json.loads(ready.read_text())
        async with grpc.aio.insecure_channel(addresses["grpc"]) as channel:
            yield ProjectorProcess(process, addresses, channel)
        process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def assert_read_db_shows(w: World) -> None:
    engine = open_engine(f"sqlite:///{w.folder / 'views' / 'read.db'}", access="write")
    assert_shows(engine, ORDERS, w.history)
    assert_shows(engine, SALES, w.history)
    engine.dispose()


@pytest.mark.parametrize("place", ["projection.before_commit=kill:3", "projection.after_commit=kill:4"])
def test_a_kill_beside_the_commit_has_no_double_effect(tmp_path: Path, place: str) -> None:
    async def scenario() -> None:
        history = random_history(900, seed=21)
        async with world(tmp_path, history) as w:
            await w.publish()
            for _ in range(2):
                process, _ready = await start(w, ORDERSTREAM_FAILPOINTS=place)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    assert await process.wait() == -9
            async with projector(w) as running:
                await running.both(LIVE, 900)
            assert_read_db_shows(w)

    asyncio.run(scenario())


def test_it_tells_operators_how_it_stands(tmp_path: Path) -> None:
    async def scenario() -> None:
        history, other = random_history(50, seed=22), random_history(50, seed=23)
        async with world(tmp_path, history) as w, projector(w) as running:
            await w.publish(history.events[:40])
            found = await running.both(LIVE, 40)
            orders = found["orders"]
            assert (orders.generation, orders.log_position, orders.lag_events) == (1, 40, 0)
            assert (orders.applied_events, orders.error) == (40, "")
            assert not orders.HasField("lag_time")
            assert orders.position_time.ToMicroseconds() == history.events[39].record_time
            assert orders.last_alive_time.seconds > 0
            assert await running.serving()
            metrics = await running.metrics()
            assert 'orderstream_projection_applied_events_total{projection="sales"} 40.0' in metrics
            assert 'orderstream_projection_lag_events{projection="orders"} 0.0' in metrics
            assert 'orderstream_projection_state{projection="orders",state="live"} 1.0' in metrics
            assert 'orderstream_projection_commit_seconds_count{projection="orders"}' in metrics

            await w.publish(other.events[40:45])
            found = await running.both(HALTED, 40)
            assert "event 41" in found["sales"].error
            assert found["sales"].lag_events > 0
            assert not await running.serving(), "a halted projection is not ready"
            assert 'orderstream_projection_state{projection="sales",state="halted"} 1.0' in await running.metrics()

    asyncio.run(scenario())


def test_a_read_db_that_was_deleted_while_stopped_is_rebuilt(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(300, seed=24)
        async with world(tmp_path, history) as w:
            w.fill_log()
            await w.publish()
            await w.js.purge_stream("ORDERSTREAM", seq=101)
            async with w.serve_log():
                async with projector(w) as running:
                    await running.both(LIVE, 300)
                for file in (w.folder / "views").glob("read.db*"):
                    file.unlink()
                async with projector(w) as running:
                    await running.both(LIVE, 300)
            assert_read_db_shows(w)

    asyncio.run(scenario())


def test_a_read_db_that_is_deleted_while_in_use_ends_the_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, random_history(10, seed=25)) as w:
            process, ready = await start(w)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not ready.exists():  # noqa: ASYNC110 - another process makes it
                        await asyncio.sleep(0.02)
                    (w.folder / "views" / "read.db").unlink()
                    assert await process.wait() == 70
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    asyncio.run(scenario())


@pytest.mark.parametrize("what", ["a folder", "another file"])
def test_a_read_db_that_cannot_be_opened_is_refused_with_a_clear_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    file = tmp_path / "read.db"
    if what == "a folder":
        file.mkdir()
    else:
        file.write_bytes(b"not a database, whatever its name says" * 100)
    assert main(["--read-db-url", f"sqlite:///{file}", "--listen", "127.0.0.1:0"]) == 78
    assert f"cannot open the read DB sqlite:///{file}" in capfd.readouterr().err


def test_a_read_db_of_another_release_is_refused_with_a_clear_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'read.db'}", access="write")
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('9999')")
    engine.dispose()
    assert main(["--read-db-url", f"sqlite:///{tmp_path / 'read.db'}", "--listen", "127.0.0.1:0"]) == 78
    assert "newer release" in capfd.readouterr().err


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name in (
        "--read-db-url",
        "--command-server",
        "--batch-events",
        "--retry-max-seconds",
        "ORDERSTREAM_READ_DB_URL",
    ):
        assert name in text
