"""The query server's parts as app.py joins them, without network; and a gate that holds reads in mid-air."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import sqlalchemy as sa

from cqrs.records import to_micros
from cqrs.tokens import ConsistencyToken, encode_token
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from orderstream.projections.v1.notification_pb2 import ProjectionChanged
from query_server.cache import AnswerCache
from query_server.freshness import LogHead
from query_server.poller import CheckpointPoller
from query_server.queries.customers import CustomerQueries
from query_server.queries.orders import OrderQueries
from query_server.queries.sales import SalesQueries
from query_server.reader import ReadDatabase, Snapshot
from query_server.tracker import ProjectionTracker
from query_server.view import View
from readmodel.sales import CHANGE_KEY
from readmodel.schema import READ_SCHEMA
from tests.integration.query_server.read_db import EPOCH, ReadDb

T = TypeVar("T")


class Context:
    """The part of a ServicerContext that queries look at."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        return self._seconds


class GatedDatabase(ReadDatabase):
    """A read DB whose reads can be held after they have read, and which counts them."""

    def __init__(self, url: str, **bounds: int) -> None:
        super().__init__(url, READ_SCHEMA, **{"threads": 4, "max_queue": 100, **bounds})
        self.rows_read = 0
        self.open = threading.Event()
        self.open.set()
        self.held = threading.Semaphore(0)

    async def read(self, projection: str, work: Callable[[sa.Connection, int], T]) -> tuple[Snapshot, T]:
        def gated(connection: sa.Connection, generation: int) -> T:
            result = work(connection, generation)
            self.rows_read += 1
            self.held.release()
            assert self.open.wait(20)
            return result

        return await super().read(projection, gated)

    async def reading(self) -> None:
        """Return when a read has read its rows (and is held, if the gate is shut)."""
        assert await asyncio.to_thread(self.held.acquire, timeout=20)


class Rig:
    """A query server in pieces."""

    def __init__(
        self,
        db: ReadDb,
        *,
        cache_bytes: int = 1 << 20,
        ttl: float = 60.0,
        clock: Callable[[], float] | None = None,
        max_waiting: int = 100,
        **bounds: int,
    ) -> None:
        self.db = db
        self.database = GatedDatabase(db.url, **bounds)
        timing: dict[str, Any] = {} if clock is None else {"clock": clock}
        self.log = LogHead(**timing)
        self.trackers = {name: ProjectionTracker(name, **timing) for name in ("orders", "sales")}
        self.poller = CheckpointPoller(
            self.database, list(self.trackers.values()), interval_seconds=0.2, on_result=lambda _: None
        )
        self.views = {
            name: View(
                tracker,
                self.database,
                self.poller,
                self.log,
                AnswerCache(
                    tracker,
                    max_bytes=cache_bytes,
                    ttl_seconds=ttl,
                    whole_view_keys=(CHANGE_KEY,) if name == "sales" else (),
                    **timing,
                ),
                max_waiting=max_waiting,
                **timing,
            )
            for name, tracker in self.trackers.items()
        }
        self.orders = OrderQueries(self.views["orders"], max_response_bytes=1 << 20)
        self.customers = CustomerQueries(self.views["orders"])
        self.sales = SalesQueries(self.views["sales"])
        self.cache = self.views["orders"].cache
        self.tracker = self.trackers["orders"]

    def notify(self, change: ProjectionChanged) -> bool:
        """A notification arrives."""
        return self.trackers[change.projection].notified(
            generation=change.generation,
            epoch=change.epoch,
            first=change.from_position,
            last=change.to_position,
            keys=change.keys,
            flush=change.flush,
            record_time=to_micros(change.to_record_time),
        )

    def heartbeat(self, position: int, *, epoch: str = EPOCH) -> None:
        """A heartbeat arrives."""
        message = LogHeartbeat(epoch=epoch, position=position, published_position=position)
        message.record_time.FromMicroseconds(1_700_000_000_000_000 + position * 1_000_000)
        self.log.heartbeat(message)
        for view in self.views.values():
            view.tails.heartbeat()

    async def connect(self) -> None:
        """The broker is there, and the subscriptions are confirmed."""
        await self.poller.poll()
        for tracker in self.trackers.values():
            tracker.feed_began()
        self.log.connection(connected=True)


@asynccontextmanager
async def running(db: ReadDb, **options: Any) -> AsyncIterator[Rig]:
    """A rig that is connected, with its poller running."""
    rig = Rig(db, **options)
    try:
        await rig.connect()
        polling = asyncio.create_task(rig.poller.run())
        try:
            yield rig
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
    finally:
        rig.database.open.set()
        rig.database.close()


def token(position: int, *, epoch: str = EPOCH) -> str:
    """A consistency token."""
    return encode_token(ConsistencyToken(epoch, position))
