"""EventService in the test's own process, on a real database, with hands on every read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry

from command_server.aggregates import AGGREGATE_TYPES
from command_server.events.metrics import SubscriptionMetrics
from command_server.events.service import EventService, EventServiceLimits
from command_server.events.store_access import ReaderThreads
from command_server.events.tail import TailLimits
from cqrs.records import LogHead
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import Snapshots, rules_for
from cqrs.store.queries import EVERYTHING, LogFilter, LogPage
from cqrs.store.sql import SqlEventStore
from orderstream.events.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse
from tests.integration.events.writing import LogWriter
from tests.integration.logs import new_write_db

PATIENCE_SECONDS = 20.0


def nothing() -> None:
    """What happens at a read when no test wants anything else."""


class WatchedStore(SqlEventStore):
    """A write DB that calls back, on the reading thread, before and after it reads for subscribers."""

    before: Callable[[], None] = staticmethod(nothing)
    after: Callable[[], None] = staticmethod(nothing)
    reads = 0

    def read_head(self) -> LogHead:
        self.before()
        head = super().read_head()
        self.after()
        return head

    def read_page(self, from_position: int, limit: int, max_bytes: int, chosen: LogFilter = EVERYTHING) -> LogPage:
        self.reads += 1
        self.before()
        page = super().read_page(from_position, limit, max_bytes, chosen)
        self.after()
        return page


@contextmanager
def watched_log(where: Path | str) -> Iterator[tuple[WatchedStore, LogWriter]]:
    """A write DB, in a folder or at a URL, and another connection to it that writes."""
    url = where if isinstance(where, str) else new_write_db(where)
    watched, writing = WatchedStore(url, readers=8), SqlEventStore(url)
    try:
        yield watched, LogWriter(writing)
    finally:
        watched.close()
        writing.close()


class Served:
    """A running EventService."""

    def __init__(self, service: EventService, draining: asyncio.Event, registry: CollectorRegistry) -> None:
        self.service = service
        self.draining = draining
        self._registry = registry

    def metric(self, name: str) -> float:
        value = self._registry.get_sample_value(name)
        assert value is not None, name
        return value

    @asynccontextmanager
    async def subscriber(self, request: SubscribeRequest | None = None) -> AsyncIterator[Subscriber]:
        answers = self.service.Subscribe(request or SubscribeRequest(), cast(Any, None))
        subscriber = Subscriber(cast("AsyncGenerator[bytes]", answers))
        try:
            yield subscriber
        finally:
            await cast("AsyncGenerator[bytes]", answers).aclose()


class Subscriber:
    """A subscriber that reads an answer when it is told to."""

    def __init__(self, answers: AsyncGenerator[bytes]) -> None:
        self._answers = answers
        self.positions: list[int] = []
        """Of all events so far."""
        self.last = SubscribeResponse()
        """The last answer."""

    async def read(self) -> SubscribeResponse:
        """The next answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.last = SubscribeResponse.FromString(await anext(self._answers))
        self.positions += [event.position for event in self.last.events]
        return self.last

    async def read_until(self, position: int) -> None:
        """Read until the answers have covered a position."""
        while self.last.position < position:
            await self.read()

    async def read_until_caught_up(self) -> None:
        """Read until an answer says so."""
        while not self.last.caught_up:
            await self.read()


@asynccontextmanager
async def serving(
    store: SqlEventStore,
    *,
    tail: TailLimits = TailLimits(poll_seconds=0.02),  # noqa: B008 - is immutable
    max_subscribers: int = 100,
    patience_seconds: float = 5.0,
    snapshots: bool = False,
) -> AsyncIterator[Served]:
    """EventService on this store while the context is open."""
    registry, draining = CollectorRegistry(), asyncio.Event()
    rules = rules_for(AGGREGATE_TYPES, {type_.name: 1 for type_ in AGGREGATE_TYPES} if snapshots else {})
    with ThreadPoolExecutor(4) as threads, ThreadPoolExecutor(1) as tail_thread:
        service = EventService(
            store,
            ReaderThreads(threads, patience_seconds),
            ReaderThreads(tail_thread, patience_seconds),
            Snapshots(AGGREGATE_TYPES, rules, SnapshotMetrics(registry)),
            SubscriptionMetrics(registry),
            draining,
            EventServiceLimits(max_subscribers=max_subscribers, tail=tail),
        )
        yield Served(service, draining, registry)
