"""A projector's surroundings for tests: a real broker, a real EventService, a read DB, and hands on the stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import nats
import sqlalchemy as sa
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamConfig
from nats.js.errors import NotFoundError
from prometheus_client import CollectorRegistry

from command_server.events.metrics import SubscriptionMetrics
from command_server.events.service import EventService
from command_server.events.store_access import ReaderThreads
from cqrs.broker.connection import BrokerConnection
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.projection.log_reader import LogReader
from cqrs.projection.projection import Projection
from cqrs.projection.runner import ProjectionRunner, RunnerOptions
from cqrs.projection.status import LIVE, ProjectionStatus
from cqrs.projection.store import ProjectionStore
from cqrs.records import EventRecord, to_wire
from cqrs.relay.stream import METADATA_EPOCH
from cqrs.serving.stop import StopSignal
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import Snapshots
from cqrs.store.memory import MemoryEventStore
from cqrs.subjects import HEADER_EPOCH, HEADER_HASH, HEADER_POSITION, changes_subject, log_filter, log_subject
from orderstream.projections.v1.notification_pb2 import ProjectionChanged
from readmodel.orders import OrdersProjection
from tests.integration.projection.read_db import new_read_db
from tests.orders_history import History

STREAM, PREFIX = "ORDERSTREAM", "orderstream"
PATIENCE_SECONDS = 20.0


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.states: list[tuple[str, int, str]] = []
        self.batches: list[tuple[str, int]] = []

    def committed(self, status: ProjectionStatus, events: int, seconds: float) -> None:
        assert seconds > 0
        self.batches.append((status.name, events))

    def changed(self, status: ProjectionStatus) -> None:
        self.states.append((status.name, status.state, status.error))


class Projector:
    """Runners of one process."""

    def __init__(self, runners: Sequence[ProjectionRunner], observer: Recorder, connection: BrokerConnection) -> None:
        self.runners = runners
        self.observer = observer
        self.connection = connection
        self.stop = StopSignal()

    @property
    def status(self) -> ProjectionStatus:
        return self.runners[0].status

    async def reaches_at_once(self, position: int) -> None:
        """As `reaches`, without a pause between looks."""
        while self.status.position < position:  # noqa: ASYNC110 - to measure milliseconds
            await asyncio.sleep(0)

    async def reaches(self, position: int) -> None:
        await until(lambda: all(runner.status.position >= position for runner in self.runners), self.describe)

    async def shows(self, state: int, error: str = "") -> None:
        await until(lambda: self.status.state == state and error in self.status.error, self.describe)

    def describe(self) -> str:
        return "; ".join(repr(runner.status) for runner in self.runners)


class World:
    """One broker with one stream, one log, one read DB."""

    def __init__(self, folder: Path, history: History) -> None:
        self.folder = folder
        self.history = history
        self.broker = EmbeddedBroker(folder / "jetstream")
        self.log = MemoryEventStore()
        self.engine: sa.Engine = new_read_db(folder)
        self.event_service = "127.0.0.1:1"
        self.client: Client

    @property
    def js(self) -> JetStreamContext:
        return self.client.jetstream(timeout=5)

    async def connect(self) -> None:
        self.client = await nats.connect(self.broker.url, allow_reconnect=False)

    async def make_stream(self, epoch: str | None = None) -> None:
        await self.js.add_stream(
            StreamConfig(
                name=STREAM, subjects=[log_filter(PREFIX)], metadata={METADATA_EPOCH: epoch or self.history.epoch}
            )
        )

    async def publish(
        self, events: Sequence[EventRecord] | None = None, epoch: str | None = None, *, wait: bool = True
    ) -> None:
        """Put events on the stream as they are, without a relay's checks; wait until they are there."""
        events = self.history.events if events is None else events
        end = await self.last_sequence() + len(events) if wait else 0
        for event in events:
            headers = {
                HEADER_EPOCH: epoch or self.history.epoch,
                HEADER_POSITION: str(event.position),
                HEADER_HASH: event.hash.hex(),
            }
            subject = log_subject(PREFIX, event.aggregate_type, event.aggregate_id, event.event_type)
            await self.client.publish(subject, to_wire(event).SerializeToString(), headers=headers)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while wait and await self.last_sequence() < end:  # noqa: ASYNC110 - the broker has no event for it
                await asyncio.sleep(0.01)

    async def last_sequence(self) -> int:
        return (await self.js.stream_info(STREAM)).state.last_seq

    def fill_log(self, events: Sequence[EventRecord] | None = None) -> None:
        """Make the log that EventService reads end with the history's events."""
        wanted = self.history.events if events is None else events
        with self.log.begin_append() as transaction:
            new = wanted[transaction.head.position :]
            transaction.append(new, [], self.history.head._replace(position=new[-1].position, hash=new[-1].hash))
            transaction.commit()

    async def consumer(self, name: str = "projector-orders-g1-s0") -> ConsumerInfo | None:
        try:
            info: ConsumerInfo = await self.js.consumer_info(STREAM, name)
            return info
        except NotFoundError:
            return None

    @asynccontextmanager
    async def serve_log(self) -> AsyncIterator[None]:
        """Serve the log by EventService while the context is open."""
        with ThreadPoolExecutor(2) as threads:
            server = grpc.aio.server()
            readers, registry = ReaderThreads(threads), CollectorRegistry()
            snapshots = Snapshots((), {}, SnapshotMetrics(registry))
            service = EventService(
                self.log, readers, readers, snapshots, SubscriptionMetrics(registry), asyncio.Event()
            )
            service.add_to(server)
            self.event_service = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            try:
                yield
            finally:
                await server.stop(None)

    @asynccontextmanager
    async def projector(
        self, *projections: Projection, engine: sa.Engine | None = None, confirm_seconds: float = 0
    ) -> AsyncIterator[Projector]:
        """Run projections (orders, if none is given) while the context is open."""
        stop = StopSignal()
        connection = BrokerConnection(self.broker.url, "projector")
        connecting = asyncio.create_task(connection.run(stop))
        observer = Recorder()
        async with grpc.aio.insecure_channel(self.event_service) as channel:
            runners = [
                ProjectionRunner(
                    projection,
                    ProjectionStore(engine or self.engine, projection, _NO_LOCK),
                    broker=connection,
                    log=LogReader(channel, self.event_service),
                    options=RunnerOptions(STREAM, PREFIX, confirm_seconds=confirm_seconds, retry_max_seconds=0.5),
                    observer=observer,
                )
                for projection in projections or (OrdersProjection(),)
            ]
            projector = Projector(runners, observer, connection)
            projector.stop = stop
            running = [asyncio.create_task(runner.run(stop)) for runner in runners]
            try:
                yield projector
            finally:
                stop.set("the test is done")
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await asyncio.gather(*running)
                await connection.close()
                await asyncio.gather(connecting, return_exceptions=True)

    async def notifications(self, projection: str = "orders") -> list[ProjectionChanged]:
        """A list that change notifications are added to as they come."""
        heard: list[ProjectionChanged] = []

        async def on_change(message: Msg) -> None:
            heard.append(ProjectionChanged.FromString(message.data))

        await self.client.subscribe(changes_subject(PREFIX, projection), cb=on_change)
        await self.client.flush()
        return heard


class _NoLock:
    """SQLite's own lock is enough for a test."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_NO_LOCK = _NoLock()


@asynccontextmanager
async def world(folder: Path, history: History, *, stream: bool = True) -> AsyncIterator[World]:
    """A broker that runs, by default with an empty stream."""
    made = World(folder, history)
    async with made.broker:
        await made.connect()
        if stream:
            await made.make_stream()
        try:
            yield made
        finally:
            await made.client.close()
            made.engine.dispose()


async def until(condition: Callable[[], bool], describe: Callable[[], str] = str) -> None:
    """Wait for a condition, at most PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE_SECONDS} s: {describe()}")
        await asyncio.sleep(0.01)


async def steady(seconds: float = 0.5) -> None:
    """Give something that must not happen the time to happen."""
    await asyncio.sleep(seconds)


__all__ = ["LIVE", "PREFIX", "STREAM", "Projector", "World", "steady", "until", "world"]
