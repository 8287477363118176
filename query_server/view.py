"""How a query gets its answer: from the cache, or from the read DB, and not before the client's token is reached."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import grpc.aio
import sqlalchemy as sa

from cqrs.errors import DeadlinePassed, HistoryChanged, Overloaded, ReadModelBehind
from cqrs.serving.deadlines import remaining_seconds
from cqrs.serving.validation import Violations
from cqrs.tokens import ConsistencyToken, MalformedToken, decode_token
from orderstream.customers.v1.queries_pb2 import GetCustomerRequest
from orderstream.orders.v1.queries_pb2 import BatchGetOrdersRequest, GetOrderRequest, ListOrdersRequest
from orderstream.sales.v1.queries_pb2 import GetSalesDashboardRequest
from query_server.cache import AnswerCache
from query_server.freshness import FreshnessTails, LogHead
from query_server.poller import CheckpointPoller
from query_server.reader import ReadDatabase, Snapshot
from query_server.tracker import ProjectionTracker

T = TypeVar("T")

DEFAULT_MAX_WAIT_SECONDS = 2.0
MOST_MAX_WAIT_SECONDS = 30.0

_ANSWER_SECONDS = 0.05
"""Kept of a call's deadline (a tenth of it, if that is less), so that the client gets an answer that says why."""

Query = GetOrderRequest | BatchGetOrdersRequest | ListOrdersRequest | GetCustomerRequest | GetSalesDashboardRequest
"""All of them have `consistency_token` and `max_wait`."""

_Context = grpc.aio.ServicerContext[Any, Any]


class Need(NamedTuple):
    """What a client asks of the answer's age."""

    token: ConsistencyToken | None
    """The answer must show the log up to here."""
    deadline: float
    """Until when to wait for that, in seconds of the monotonic clock."""


def need_of(v: Violations, request: Query, context: _Context) -> Need:
    """Check the two fields that all queries have, and look at the call's deadline.

    Raises:
        DeadlinePassed: the call has no time left.
    """
    token = None
    if request.consistency_token:
        try:
            token = decode_token(request.consistency_token)
        except MalformedToken as error:
            v.add("consistency_token", str(error))
        else:
            if token.cell:
                v.add("consistency_token", f"is of cell {token.cell}, which this server does not serve")
    seconds = DEFAULT_MAX_WAIT_SECONDS
    if request.HasField("max_wait"):
        seconds = v.duration("max_wait", request.max_wait, 0, MOST_MAX_WAIT_SECONDS)
    remaining = remaining_seconds(context)
    if remaining is not None:
        if remaining <= 0:
            raise DeadlinePassed
        seconds = min(seconds, remaining - min(_ANSWER_SECONDS, remaining / 10))
    return Need(token, time.monotonic() + seconds)


class View:
    """The queries' access to one projection."""

    def __init__(
        self,
        tracker: ProjectionTracker,
        database: ReadDatabase,
        poller: CheckpointPoller,
        log: LogHead,
        cache: AnswerCache,
        *,
        max_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the parts.

        Args:
            tracker: how far the projection has got.
            database: where its rows are.
            poller: whom to ask when a token is not reached.
            log: what is heard from the log.
            cache: of the projection's answers; attached to the tracker.
            max_waiting: how many calls may wait for a token at a time.
            clock: of what answers say about their age; seconds, monotonic.
        """
        self.tracker = tracker
        self.cache = cache
        self.tails = FreshnessTails(tracker, log, clock=clock)
        self._database = database
        self._poller = poller
        self._log = log
        self._max_waiting = max_waiting

    async def cached(
        self, key: str, need: Need, load: Callable[[sa.Connection, int], bytes | None]
    ) -> tuple[bytes, bytes] | None:
        """Body and tail of the answer for `key`, from the cache if that is good enough; None: there is no such thing.

        `load(connection, generation)` reads the body, on a thread.

        Raises:
            HistoryChanged, ReadModelBehind: see `reach`.
            Overloaded, StoreUnavailable: see there and `ReadDatabase.read`.
        """
        # First: once the change is here that the client has seen (most often another row's), the cache is good again.
        await self.reach(need)
        kept = self.cache.get(key, need.token)
        if kept is not None:
            return kept.body or b"", self.tails.cached(kept)
        return await self.fetched(key, need, load)

    async def fetched(
        self, key: str, need: Need, load: Callable[[sa.Connection, int], bytes | None]
    ) -> tuple[bytes, bytes] | None:
        """As `cached`, when it is known that the cache is of no use; what is read goes into it."""
        while True:
            await self.reach(need)
            answer = await self.cache.fetch(key, lambda: self._database.read(self.tracker.projection, load))
            if self._is_enough(need, answer.snapshot):
                return None if answer.body is None else (answer.body, self.tails.fresh(answer.snapshot))

    async def read(self, need: Need, load: Callable[[sa.Connection, int], T]) -> tuple[T, bytes]:
        """What `load(connection, generation)` reads, and the tail of an answer made of it. Nothing is cached.

        Raises:
            HistoryChanged, ReadModelBehind: see `reach`.
            Overloaded, StoreUnavailable: see `ReadDatabase.read`.
        """
        while True:
            await self.reach(need)
            mark = self.tracker.begin_read()
            snapshot, rows = await self._database.read(self.tracker.projection, load)
            self.tracker.end_read(mark, snapshot)
            if self._is_enough(need, snapshot):
                return rows, self.tails.fresh(snapshot)

    async def reach(self, need: Need) -> None:
        """Wait until the read DB is known to show what the client has seen.

        Raises:
            HistoryChanged: the token is of a history that was replaced.
            ReadModelBehind: it took longer than the client wants to wait.
            Overloaded: too many calls wait already.
            StoreUnavailable: the read DB cannot be read, so nobody knows.
        """
        token = need.token
        if token is None or (token.position == 0 and self.tracker.epoch in ("", token.epoch)):
            return
        tracker, poller = self.tracker, self._poller
        asked = False
        while tracker.epoch != token.epoch or tracker.checkpoint < token.position:
            other_history = tracker.epoch not in ("", token.epoch)
            if other_history and asked and self._log.epoch not in ("", token.epoch):
                raise HistoryChanged(token.epoch, tracker.epoch)
            remaining = need.deadline - time.monotonic()
            if poller.failure is not None or ((other_history or remaining <= 0) and not asked):
                await poller.poll()  # what is known here may be a second old
                asked = True
                continue
            if remaining <= 0:
                raise ReadModelBehind(tracker.projection, token.position, tracker.checkpoint)
            if tracker.waiting >= self._max_waiting:
                raise Overloaded(f"{tracker.waiting} calls are waiting for the read model: retry")
            poller.poke()
            # Of another history no position counts: only the news that it was replaced does.
            await tracker.wait(sys.maxsize if other_history else token.position, remaining)

    def _is_enough(self, need: Need, snapshot: Snapshot) -> bool:
        """Whether what was read shows the client's token. If not, the read was under way before that was reached."""
        token = need.token
        if token is None or (token.position == 0 and not snapshot.epoch):
            return True
        return token.epoch == snapshot.epoch and token.position <= snapshot.position
