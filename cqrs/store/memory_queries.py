"""LogQueries on a log in a list."""

from __future__ import annotations

from collections.abc import Sequence

from cqrs.records import EventRecord, LogHead
from cqrs.store.epochs import LogEpoch
from cqrs.store.port import StoredResult, within_bytes
from cqrs.store.queries import (
    EVERYTHING,
    SCAN_POSITIONS,
    EventsFound,
    LogFigures,
    LogFilter,
    LogPage,
    first_at_or_after,
    found_within,
    page_of,
)


class MemoryQueries:
    """The part of the event store in memory that only reads, for EventService."""

    def __init__(self, head: LogHead) -> None:
        self._events: list[EventRecord] = []
        self._results: dict[str, StoredResult] = {}
        self._head = head
        self._epochs = [LogEpoch(head.epoch, 0, 0)]

    def read_page(self, from_position: int, limit: int, max_bytes: int, chosen: LogFilter = EVERYTHING) -> LogPage:
        """See LogQueries."""
        head = self._head
        if from_position > head.position:
            return LogPage(head, [], from_position)
        last = min(head.position, from_position + SCAN_POSITIONS - 1)
        found = filter(chosen.chooses, self._events[from_position - 1 : last])
        return page_of(head, found, last, limit, max_bytes)

    def read_aggregate_backwards(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int
    ) -> list[EventRecord]:
        """See LogQueries."""
        found = [event for event in self._of(aggregate_id) if event.version <= from_version]
        return within_bytes(found[::-1][:limit], max_bytes)

    def position_at(self, record_time: int) -> int:
        """See LogQueries."""
        return _first(self._events, record_time)

    def version_at(self, aggregate_id: str, record_time: int) -> int:
        """See LogQueries."""
        return _first(self._of(aggregate_id), record_time)

    def read_epochs(self) -> list[LogEpoch]:
        """See LogQueries."""
        return list(self._epochs)

    def read_figures(self) -> LogFigures:
        """See LogQueries."""
        return LogFigures(0, 0, len(self._results))

    def find_correlated(self, correlation_id: str, limit: int, max_bytes: int) -> EventsFound:
        """See LogQueries."""
        found = (event for event in self._events if event.correlation_id == correlation_id)
        return found_within(found, limit, max_bytes)

    def find_caused(
        self, causation_ids: Sequence[str], limit: int, max_bytes: int, without_correlation_id: str | None = None
    ) -> EventsFound:
        """See LogQueries."""
        wanted = set(causation_ids)
        found = [
            event
            for event in self._events
            if event.causation_id in wanted
            and (without_correlation_id is None or event.correlation_id != without_correlation_id)
        ]
        found.sort(key=lambda event: (event.causation_id or "", event.position))
        return found_within(found, limit, max_bytes)

    def find_event(self, event_id: str, from_position: int, to_position: int) -> EventRecord | None:
        """See LogQueries."""
        return next((event for event in self._range(from_position, to_position) if event.event_id == event_id), None)

    def find_request(self, request_id: str, from_position: int, to_position: int) -> EventRecord | None:
        """See LogQueries."""
        found = [event for event in self._range(from_position, to_position) if event.request_id == request_id]
        return found[-1] if found else None

    def result_time(self, request_id: str) -> int | None:
        """See LogQueries."""
        result = self._results.get(request_id)
        return None if result is None else result.record_time

    def _of(self, aggregate_id: str) -> list[EventRecord]:
        return [event for event in self._events if event.aggregate_id == aggregate_id]

    def _range(self, from_position: int, to_position: int) -> list[EventRecord]:
        return self._events[max(0, from_position - 1) : max(0, to_position)]


def _first(events: Sequence[EventRecord], record_time: int) -> int:
    return first_at_or_after(record_time, len(events) + 1, lambda number: events[number - 1].record_time)
