"""Follows the event log by a subscription, which it takes up again where it was when the server goes and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio

from cli import console
from cli.calls import connected
from cli.failures import CheckFailed, Unavailable
from cli.options import Connection
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.events.v1.event_service_pb2 import (
    READ_DIRECTION_BACKWARDS,
    DescribeLogRequest,
    EventFilter,
    ReadAggregateRequest,
    SubscribeRequest,
    SubscribeResponse,
)
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream_client import decode_error

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from orderstream.events.v1.event_service_pb2_grpc import EventServiceAsyncStub

_LAST_EVENTS = 10
"""How many events are shown when no start is given."""

_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0
"""How long following goes on while the server cannot be reached."""

_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED})


class Wanted(NamedTuple):
    """Which events."""

    aggregate: str = ""
    """An aggregate's id: then its events only. Empty: the whole log."""
    start: int | None = None
    """First log position, or the aggregate's first version."""
    from_time: Timestamp | None = None
    """First record time. Neither of the two: so that the last few are shown."""
    aggregate_types: tuple[str, ...] = ()
    """Only these types of aggregates; empty: all."""
    event_types: tuple[str, ...] = ()
    """Only these events, by the full names of their messages; empty: all."""


async def follow_events(
    connection: Connection,
    wanted: Wanted,
    show: Callable[[RecordedEvent], None],
    *,
    follow: bool,
    limit: int | None,
) -> None:
    """Call `show` for each wanted event; with `follow`, also for those to come.

    Raises:
        ServerRefused: the server refused, or was away for longer than a minute (without `follow`: at all).
        Unavailable: without `follow`, the server does not answer in time.
        CheckFailed: the log was replaced by another history while it was followed.
    """
    async with connected(connection, connection.command_server) as channel:
        stub = EventServiceStub(channel)
        head = await stub.DescribeLog(DescribeLogRequest(), timeout=connection.timeout)
        if not follow and not head.position:
            return
        request = await _first_request(stub, wanted, head.position, connection.timeout)
        first_version = wanted.start if wanted.aggregate and wanted.start else 1
        left = limit
        async for answer in _answers(stub, request, connection, patient=follow):
            for event in answer.events:
                if event.version < first_version or (not follow and event.position > head.position):
                    continue
                show(event)
                if left is not None:
                    left -= 1
                    if not left:
                        return
            if not follow and answer.position >= head.position:
                return


async def _first_request(
    stub: EventServiceAsyncStub, wanted: Wanted, head_position: int, seconds: float
) -> SubscribeRequest:
    """Where to begin, as the contract has it."""
    chosen = EventFilter(
        aggregate_types=wanted.aggregate_types,
        event_types=wanted.event_types,
        aggregate_ids=[wanted.aggregate] if wanted.aggregate else [],
    )
    if wanted.from_time is not None:
        return SubscribeRequest(from_time=wanted.from_time, filter=chosen)
    if not wanted.aggregate:
        start = wanted.start or max(1, head_position - _LAST_EVENTS + 1)
        return SubscribeRequest(from_position=start, filter=chosen)
    reading = ReadAggregateRequest(aggregate_id=wanted.aggregate, max_count=1, from_version=wanted.start or 0)
    if wanted.start is None:
        reading.direction, reading.max_count = READ_DIRECTION_BACKWARDS, _LAST_EVENTS
    # If it has no event there yet, it will be behind the head that was read before.
    position = head_position + 1
    async for chunk in stub.ReadAggregate(reading, timeout=seconds):
        position = chunk.events[-1].position
    return SubscribeRequest(from_position=position, filter=chosen)


async def _answers(
    stub: EventServiceAsyncStub, request: SubscribeRequest, connection: Connection, *, patient: bool
) -> AsyncIterator[SubscribeResponse]:
    """The answers to a subscription, and to those that take it up again."""
    seen = time.monotonic()
    pause = _PAUSE_SECONDS
    while True:
        call = stub.Subscribe(request)
        try:
            while True:
                async with asyncio.timeout(None if patient else connection.timeout):
                    answer = await call.read()
                if not isinstance(answer, SubscribeResponse):
                    return  # the server has ended it without a reason, which it never does
                seen, pause = time.monotonic(), _PAUSE_SECONDS
                yield answer
                request.resume_token = answer.resume_token
        except TimeoutError as error:
            raise Unavailable(f"{connection.command_server} did not answer in time") from error
        except grpc.aio.AioRpcError as failure:
            if decode_error(failure).reason == "HISTORY_CHANGED":
                raise CheckFailed(
                    "the log was replaced by another history (it was restored from a backup)",
                    hint="start again to follow the new one",
                ) from failure
            if not patient or failure.code() not in _AWAY or time.monotonic() - seen > _PATIENCE_SECONDS:
                raise
        finally:
            call.cancel()
        console.note("the command server does not answer; trying again")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
