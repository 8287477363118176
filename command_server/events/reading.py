"""ReadAggregate and ReadLog: one page a read-only transaction, so that no reader holds one open for long.

Messages are made on the threads that read: a page of them takes milliseconds, in which commands would wait.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from command_server.events.requests import LARGEST, AggregateRange, LogRange
from command_server.events.store_access import ReaderThreads
from cqrs.errors import HistoryChanged
from cqrs.records import EventRecord, to_wire
from cqrs.store.queries import LogPage, LogQueries
from orderstream.events.v1.event_service_pb2 import ReadAggregateResponse, ReadLogResponse

_PAGE_EVENTS = 500


class LogReading:
    """Reads ranges of the log. The client's flow control paces it: a page is read once the last one is on its way."""

    def __init__(self, queries: LogQueries, threads: ReaderThreads, page_bytes: int) -> None:
        """Read by `queries` on `threads`, about `page_bytes` bytes at a time."""
        self._queries = queries
        self._threads = threads
        self._page_bytes = page_bytes

    async def read_aggregate(self, wanted: AggregateRange) -> AsyncGenerator[ReadAggregateResponse]:
        """The events of one aggregate, in chunks.

        Raises:
            StoreUnavailable: the write DB failed.
        """
        version = await self._first_version(wanted)
        left = wanted.max_count
        read = self._queries.read_aggregate_backwards if wanted.backwards else self._queries.read_aggregate

        def read_chunk(limit: int) -> tuple[list[EventRecord], ReadAggregateResponse]:
            events = read(wanted.aggregate_id, version, limit, self._page_bytes)
            return events, ReadAggregateResponse(events=map(to_wire, events))

        while left > 0 and version > 0:
            events, chunk = await self._threads.read(partial(read_chunk, min(left, _PAGE_EVENTS)))
            if not events:
                return
            yield chunk
            version, left = events[-1].version + (-1 if wanted.backwards else 1), left - len(events)

    async def read_log(self, wanted: LogRange) -> AsyncGenerator[ReadLogResponse]:
        """The log up to its head as it is now, in chunks.

        Raises:
            HistoryChanged: the log was replaced meanwhile.
            StoreUnavailable: the write DB failed.
        """
        position, left = wanted.from_position, wanted.max_count
        if wanted.from_time is not None:
            position = await self._threads.read(partial(self._queries.position_at, wanted.from_time))
        head = await self._threads.read(self._queries.read_head)

        def read_chunk(limit: int) -> tuple[LogPage, ReadLogResponse]:
            page = self._queries.read_page(position, limit, self._page_bytes, wanted.chosen)
            # Without those that were committed after the call began.
            return page, ReadLogResponse(
                events=[to_wire(each) for each in page.events if each.position <= head.position]
            )

        while left > 0 and position <= head.position:
            page, chunk = await self._threads.read(partial(read_chunk, min(left, _PAGE_EVENTS)))
            if page.head.epoch != head.epoch:
                raise HistoryChanged(head.epoch, page.head.epoch)
            if chunk.events:
                yield chunk
            position, left = page.next_position, left - len(chunk.events)

    async def _first_version(self, wanted: AggregateRange) -> int:
        """The version to begin with; 0: there is nothing."""
        if wanted.from_time is None:
            return wanted.from_version or (LARGEST if wanted.backwards else 1)
        version_at = self._queries.version_at
        if wanted.backwards:
            return await self._threads.read(partial(version_at, wanted.aggregate_id, wanted.from_time + 1)) - 1
        return await self._threads.read(partial(version_at, wanted.aggregate_id, wanted.from_time))
