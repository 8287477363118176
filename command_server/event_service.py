"""EventService: the log, for readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import grpc

from cqrs.errors import StoreUnavailable
from cqrs.records import to_timestamp, to_wire
from cqrs.serving.validation import Violations
from cqrs.store.port import EventReader, StoreError
from orderstream.events.v1.event_service_pb2 import (
    DescribeLogRequest,
    DescribeLogResponse,
    ReadAggregateRequest,
    ReadAggregateResponse,
    ReadLogRequest,
    ReadLogResponse,
)
from orderstream.events.v1.event_service_pb2_grpc import EventServiceServicer

SERVICE = "orderstream.events.v1.EventService"

_PAGE_EVENTS = 500
_PAGE_BYTES = 1024 * 1024
_LARGEST = 2**63 - 1

_T = TypeVar("_T")
_ServicerContext = grpc.aio.ServicerContext[Any, Any]


class EventService(EventServiceServicer):
    """Reads one page a transaction, on threads of its own; the client's flow control paces it."""

    def __init__(self, reader: EventReader, threads: ThreadPoolExecutor, max_message_bytes: int) -> None:
        """Serve what `reader` reads, on `threads`, in messages well below `max_message_bytes`."""
        self._reader = reader
        self._threads = threads
        self._page_bytes = min(_PAGE_BYTES, max_message_bytes // 2)

    async def ReadAggregate(
        self, request: ReadAggregateRequest, context: _ServicerContext
    ) -> AsyncIterator[ReadAggregateResponse]:
        """See the contract."""
        violations = Violations()
        violations.identifier("aggregate_id", request.aggregate_id)
        _range(violations, "from_version", request.from_version, request.max_count)
        violations.check()
        version, left = max(1, request.from_version), request.max_count or _LARGEST
        while left > 0:
            limit = min(left, _PAGE_EVENTS)
            events = await self._read(
                partial(self._reader.read_aggregate, request.aggregate_id, version, limit, self._page_bytes)
            )
            if not events:
                return
            yield ReadAggregateResponse(events=map(to_wire, events))
            version, left = events[-1].version + 1, left - len(events)

    async def ReadLog(self, request: ReadLogRequest, context: _ServicerContext) -> AsyncIterator[ReadLogResponse]:
        """See the contract."""
        violations = Violations()
        _range(violations, "from_position", request.from_position, request.max_count)
        violations.check()
        head = await self._read(self._reader.read_head)
        position = max(1, request.from_position)
        left = min(request.max_count or _LARGEST, head.position - position + 1)
        while left > 0:
            limit = min(left, _PAGE_EVENTS)
            events = await self._read(partial(self._reader.read_log, position, limit, self._page_bytes))
            if not events:
                return
            yield ReadLogResponse(events=map(to_wire, events))
            position, left = events[-1].position + 1, left - len(events)

    async def DescribeLog(self, request: DescribeLogRequest, context: _ServicerContext) -> DescribeLogResponse:
        """See the contract."""
        head = await self._read(self._reader.read_head)
        return DescribeLogResponse(
            position=head.position,
            hash=head.hash,
            epoch=head.epoch,
            record_time=to_timestamp(head.record_time) if head.position else None,
        )

    async def _read(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except StoreError as error:
            raise StoreUnavailable("the write DB is not available: retry") from error


def _range(violations: Violations, field: str, first: int, max_count: int) -> None:
    violations.integer(field, first, 0, _LARGEST)
    violations.integer("max_count", max_count, 0, _LARGEST)
