"""The projector's composition root: builds every part and hands it on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from cqrs import failpoints
from cqrs.broker.connection import BrokerConnection
from cqrs.database.engine import database_file, open_engine
from cqrs.database.migrations import check_schema, upgrade_schema
from cqrs.errors import ConfigurationError, OrderstreamError
from cqrs.projection.heartbeats import follow_heartbeats
from cqrs.projection.log_reader import LogReader
from cqrs.projection.runner import ProjectionRunner, RunnerOptions
from cqrs.projection.status import WORKING, ProjectionStatus
from cqrs.projection.store import ProjectionStore
from cqrs.serving.background import Background
from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Readiness
from cqrs.serving.logging import get_logger
from cqrs.serving.metrics import ServerMetrics
from cqrs.serving.process import run_command_line, settle
from cqrs.serving.stop import StopSignal
from cqrs.serving.tls import open_channel
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from orderstream.projections.v1.projection_service_pb2 import ProjectionState
from orderstream.projections.v1.projection_service_pb2_grpc import add_ProjectionServiceServicer_to_server
from projector.metrics import ProjectionMetrics
from projector.projection_service import SERVICE, ProjectionServer
from projector.settings import ProjectorSettings
from readmodel.schema import PROJECTIONS, READ_SCHEMA

_WATCH_SECONDS = 1.0

_log = get_logger(__name__)


def main(args: Sequence[str]) -> int:
    """Run a projector with these command line flags; returns the process's exit code."""
    return run_command_line(serve, ProjectorSettings, args)


async def serve(settings: ProjectorSettings, stop: StopSignal) -> None:
    """Serve until `stop`, then finish the batches in work and drain.

    Raises:
        OperatorError: the read DB is of another schema, an address is taken, and the like.
    """
    failpoints.arm_from_environment()
    engine = _open_read_db(settings.read_db_url)
    try:
        await _serve(settings, stop, engine)
    finally:
        engine.dispose()


async def _serve(settings: ProjectorSettings, stop: StopSignal, engine: sa.Engine) -> None:
    metrics = ServerMetrics()
    readiness = Readiness()
    broker = BrokerConnection(settings.nats_url, "orderstream-projector")
    channel = open_channel(settings.command_server, settings)
    log = LogReader(channel, settings.command_server)
    watcher = _Watcher(readiness)
    options = RunnerOptions(
        settings.stream,
        settings.subject_prefix,
        batch_events=settings.batch_events,
        batch_bytes=settings.batch_bytes,
        confirm_seconds=settings.confirm_log_seconds,
        retry_max_seconds=settings.retry_max_seconds,
    )
    write_lock = threading.Lock()  # SQLite has one writer at a time
    runners = [
        ProjectionRunner(
            projection,
            ProjectionStore(engine, projection, write_lock),
            broker=broker,
            log=log,
            options=options,
            observer=watcher,
        )
        for projection in (make() for make in PROJECTIONS)
    ]
    statuses = [runner.status for runner in runners]
    watcher.metrics = ProjectionMetrics(metrics.registry, statuses)
    for status in statuses:
        readiness.require(f"projection {status.name}", "starting")

    def heard(heartbeat: LogHeartbeat) -> None:
        for runner in runners:
            runner.heard(heartbeat)

    server = GrpcServer(settings, metrics=metrics, readiness=readiness)
    service = ProjectionServer(statuses)
    server.add(lambda grpc_server: add_ProjectionServiceServicer_to_server(service, grpc_server), SERVICE)
    async with channel, Background(stop) as background:
        background.start("broker connection", broker.run(stop))
        background.start("read DB watch", _watch_file(database_file(settings.read_db_url), stop))
        background.start("heartbeats", follow_heartbeats(broker, settings.subject_prefix, heard, stop))
        running = [background.start(f"projection {runner.status.name}", runner.run(stop)) for runner in runners]
        await server.start()
        settle()
        await stop.wait()
        await server.drain()
        for task in running:
            await task


class _Watcher:
    """Passes on what happens to projections: to health and to metrics."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self.metrics: ProjectionMetrics | None = None

    def committed(self, status: ProjectionStatus, events: int, seconds: float) -> None:
        if self.metrics is not None:
            self.metrics.committed(status.name, seconds)

    def changed(self, status: ProjectionStatus) -> None:
        component = f"projection {status.name}"
        if status.state in WORKING:
            self._readiness.ready(component)
        else:
            state = ProjectionState.Name(status.state).removeprefix("PROJECTION_STATE_").lower()
            self._readiness.not_ready(component, f"{state}: {status.error}")


def _open_read_db(url: str) -> sa.Engine:
    """Open the read DB for writing. One that is not there, or empty, is made: everything in it comes from the log."""
    engine = open_engine(url, access="write", connections=len(PROJECTIONS) + 1)
    try:
        database_file(url).parent.mkdir(parents=True, exist_ok=True)
        if not sa.inspect(engine).get_table_names():
            _, revision = upgrade_schema(engine, READ_SCHEMA)
            _log.info("read DB made, to be filled from the log", url=url, revision=revision)
        check_schema(engine, READ_SCHEMA)
    except (sa.exc.DatabaseError, OSError) as error:
        engine.dispose()
        raise ConfigurationError(f"cannot open the read DB {url}: {getattr(error, 'orig', error)}") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


class ReadDatabaseGone(OrderstreamError):
    """The read DB's file was deleted or replaced while it was in use."""


async def _watch_file(file: Path, stop: StopSignal) -> None:
    """End the process when its read DB is no longer the file of that name: nobody could read what it writes."""
    opened = _identity(file)
    while not await stop.wait_for(_WATCH_SECONDS):
        if _identity(file) != opened:
            raise ReadDatabaseGone(
                f"{file} was deleted or replaced while in use; the next start makes and fills it anew"
            )


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
