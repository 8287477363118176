"""Reads ranges of the log from EventService: what the stream lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio

from cqrs.errors import HistoryDiverged, OrderstreamError
from cqrs.projection.chain import Delivery, check_same
from cqrs.projection.checkpoint import Checkpoint
from cqrs.projection.stream import StreamEnd
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest, ReadLogRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub

if TYPE_CHECKING:
    from orderstream.events.v1.event_service_pb2_grpc import EventServiceAsyncStub

_DESCRIBE_SECONDS = 5.0
_READ_SECONDS = 30.0


class LogUnavailable(OrderstreamError):
    """EventService cannot be reached, or did not answer in time."""


class LogRange(NamedTuple):
    """A part of the log."""

    epoch: str
    deliveries: list[Delivery]


class LogReader:
    """A client of EventService. The channel belongs to the caller."""

    def __init__(self, channel: grpc.aio.Channel, target: str) -> None:
        self._stub: EventServiceAsyncStub = EventServiceStub(channel)
        self._target = target

    async def read(self, from_position: int, count: int) -> LogRange:
        """The events from a position on, `count` of them (all that there are if they are fewer).

        Raises:
            LogUnavailable: the server cannot be reached or failed.
        """
        deliveries: list[Delivery] = []
        try:
            head = await self._stub.DescribeLog(DescribeLogRequest(), timeout=_DESCRIBE_SECONDS)
            request = ReadLogRequest(from_position=from_position, max_count=count)
            async for chunk in self._stub.ReadLog(request, timeout=_READ_SECONDS):
                deliveries.extend(
                    Delivery(event.position, head.epoch, event.SerializeToString()) for event in chunk.events
                )
        except grpc.aio.AioRpcError as error:
            raise LogUnavailable(
                f"EventService of the command server at {self._target}: {error.code().name}: {error.details()}"
            ) from error
        return LogRange(head.epoch, deliveries)

    async def read_gap(self, from_position: int, to_position: int, max_events: int) -> LogRange:
        """What the stream lacks before a message that it holds, from the beginning; at most `max_events`.

        Raises:
            LogUnavailable: the server cannot be reached or failed.
            HistoryDiverged: the log does not have the range, so the stream is ahead of it.
        """
        found = await self.read(from_position, min(to_position - from_position + 1, max_events))
        if not found.deliveries:
            raise HistoryDiverged(
                f"the stream is ahead of the log: it holds position {to_position + 1}, the log has none from "
                f"{from_position} on"
            )
        return found

    async def check_end(self, end: StreamEnd) -> None:
        """Make sure that the log has what a stream ends with: else it holds a branch that the log has lost.

        Raises:
            LogUnavailable: the server cannot be reached or failed.
            HistoryDiverged: the log is of another epoch, ends before, or has another event there.
        """
        found = await self.read(end.position, 1)
        if found.epoch != end.epoch:
            raise HistoryDiverged(f"the stream is of epoch {end.epoch}, the log of epoch {found.epoch}")
        if not found.deliveries:
            raise HistoryDiverged(
                f"the stream is ahead of the log: it ends at position {end.position}, which the log does not have: the "
                "log was restored to an older point"
            )
        recorded = RecordedEvent.FromString(found.deliveries[0].payload).hash.hex()
        if recorded != end.hash:
            raise HistoryDiverged(
                f"position {end.position} has hash {end.hash or '(none)'} on the stream and {recorded} in the log: "
                "they are two histories"
            )

    async def check(self, checkpoint: Checkpoint) -> None:
        """Make sure that the log has the event of the checkpoint.

        Raises:
            LogUnavailable: the server cannot be reached or failed.
            HistoryDiverged: the log ends before it, or has another one there.
        """
        found = await self.read(checkpoint.position, 1)
        if found.epoch != checkpoint.epoch:
            raise HistoryDiverged(
                f"the log is of epoch {found.epoch}, the read model of epoch {checkpoint.epoch}: the log was restored "
                "or replaced"
            )
        if not found.deliveries:
            raise HistoryDiverged(
                f"the read model is at position {checkpoint.position}, but the log ends before: it has lost events"
            )
        check_same(checkpoint, found.deliveries[0])
