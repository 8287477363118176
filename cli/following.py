"""Follows the event log: reads it from a position, then looks at its head now and then for more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio

from cli import console
from cli.calls import connected
from cli.failures import CheckFailed
from cli.options import Connection
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest, ReadAggregateRequest, ReadLogRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub

if TYPE_CHECKING:
    from orderstream.events.v1.event_service_pb2 import DescribeLogResponse
    from orderstream.events.v1.event_service_pb2_grpc import EventServiceAsyncStub

_LAST_EVENTS = 10
"""How many events are shown when no start is given."""

_PAGE_EVENTS = 1_000
"""Events that one call reads."""

_POLL_SECONDS = 0.25
_LONGEST_POLL_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0
"""How long following goes on while the server cannot be reached."""

_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED})


class Position(NamedTuple):
    """Where to begin."""

    aggregate: str = ""
    """An aggregate's id: then its events only. Empty: the whole log."""
    start: int | None = None
    """First log position, or the aggregate's first version. None: so that the last few are shown."""


async def follow_events(
    connection: Connection,
    position: Position,
    show: Callable[[RecordedEvent], None],
    *,
    follow: bool,
    limit: int | None,
) -> None:
    """Call `show` for each event from `position` on; with `follow`, also for those to come.

    Raises:
        ServerRefused: the server refused, or was away for longer than a minute (without `follow`: at all).
        CheckFailed: the log was replaced by another history while it was followed.
    """
    async with connected(connection, connection.command_server) as channel:
        log = _Log(EventServiceStub(channel), position.aggregate, connection.timeout)
        head = await log.head()
        log.next = position.start or await log.last_few(head.position)
        left = limit
        pause = _POLL_SECONDS
        while True:
            try:
                found = False
                async for event in log.page(_PAGE_EVENTS if left is None else min(left, _PAGE_EVENTS)):
                    found = True
                    show(event)
                    if left is not None:
                        left -= 1
                if left == 0 or (not found and not follow):
                    return
                pause = _POLL_SECONDS if found else min(pause * 1.5, _LONGEST_POLL_SECONDS)
                if not found:
                    await asyncio.sleep(pause)
                    head = await log.more_than(head, pause)
            except grpc.aio.AioRpcError as failure:
                if not follow or failure.code() not in _AWAY or time.monotonic() - log.seen > _PATIENCE_SECONDS:
                    raise
                console.note("the command server does not answer; trying again")
                await asyncio.sleep(_LONGEST_POLL_SECONDS)


class _Log:
    """The log, or one aggregate's part of it, as it is read."""

    def __init__(self, stub: EventServiceAsyncStub, aggregate: str, timeout: float) -> None:
        self._stub = stub
        self._aggregate = aggregate
        self._timeout = timeout
        self.next = 1
        """The position (of an aggregate: version) to read next."""
        self.seen = time.monotonic()
        """When the server last answered (monotonic seconds)."""

    async def head(self) -> DescribeLogResponse:
        """Where the log's head is now."""
        head = await self._stub.DescribeLog(DescribeLogRequest(), timeout=self._timeout)
        self.seen = time.monotonic()
        return head

    async def last_few(self, log_position: int) -> int:
        """Where to begin for the last few."""
        last = log_position
        if self._aggregate:
            last = 0
            request = ReadAggregateRequest(aggregate_id=self._aggregate)
            async for chunk in self._stub.ReadAggregate(request, timeout=self._timeout):
                for event in chunk.events:
                    last = event.version
        return max(1, last - _LAST_EVENTS + 1)

    async def page(self, count: int) -> AsyncIterator[RecordedEvent]:
        """At most `count` events from `next` on, which moves behind each as it is given."""
        if self._aggregate:
            request = ReadAggregateRequest(aggregate_id=self._aggregate, from_version=self.next, max_count=count)
            async for chunk in self._stub.ReadAggregate(request, timeout=self._timeout):
                for event in chunk.events:
                    self.next = event.version + 1
                    yield event
            return
        async for part in self._stub.ReadLog(
            ReadLogRequest(from_position=self.next, max_count=count), timeout=self._timeout
        ):
            for event in part.events:
                self.next = event.position + 1
                yield event

    async def more_than(self, known: DescribeLogResponse, pause: float) -> DescribeLogResponse:
        """The head, once the log has grown beyond what is known."""
        while True:
            head = await self.head()
            if head.epoch != known.epoch:
                raise CheckFailed(
                    "the log was replaced by another history (it was restored from a backup)",
                    hint="start again to follow the new one",
                )
            if head.position > known.position:
                return head
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
            await asyncio.sleep(pause)
