"""What readers of the log can ask beyond EventReader: filtered pages, points in time, causes, sizes.

Implementations: `sql_queries.py` (the real one), `memory_queries.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from cqrs.records import EventRecord, LogHead
from cqrs.store.epochs import LogEpoch
from cqrs.store.port import ENVELOPE_BYTES, EventReader

SCAN_POSITIONS = 10_000
"""How many positions of the log a page with a filter looks at, at most: what bounds its transaction."""


class Labelled(Protocol):
    """What a filter looks at."""

    @property
    def aggregate_type(self) -> str:
        """See EventRecord."""
        ...

    @property
    def event_type(self) -> str:
        """See EventRecord."""
        ...

    @property
    def aggregate_id(self) -> str:
        """See EventRecord."""
        ...


class LogFilter(NamedTuple):
    """Chooses events. An empty set chooses all; an event must be chosen by each of the three."""

    aggregate_types: frozenset[str] = frozenset()
    event_types: frozenset[str] = frozenset()
    aggregate_ids: frozenset[str] = frozenset()

    @property
    def chooses_all(self) -> bool:
        """Whether it is no filter at all."""
        return not (self.aggregate_types or self.event_types or self.aggregate_ids)

    def chooses(self, event: Labelled) -> bool:
        """Whether the event is wanted."""
        types, names, ids = self
        return (
            (not ids or event.aggregate_id in ids)
            and (not types or event.aggregate_type in types)
            and (not names or event.event_type in names)
        )


EVERYTHING = LogFilter()


class LogPage(NamedTuple):
    """A part of the log, and the head at the same moment."""

    head: LogHead
    events: list[EventRecord]
    """The chosen events, in position order."""
    next_position: int
    """Where to read on: what lies before it is in `events`, or was not chosen. At most one past the head."""


class EventsFound(NamedTuple):
    """Events that were looked for, and whether there are more."""

    events: list[EventRecord]
    more: bool
    """There are others, for which the bounds had no room."""


class LogFigures(NamedTuple):
    """How large the write DB is."""

    database_bytes: int
    snapshots: int
    command_results: int
    """Estimated, where there are more than 100,000."""


class LogQueries(EventReader, Protocol):
    """The log, for EventService. Any thread; each call is one read-only transaction, and bounded."""

    def read_page(self, from_position: int, limit: int, max_bytes: int, chosen: LogFilter = EVERYTHING) -> LogPage:
        """At most `limit` chosen events from a position on, with `max_bytes` as in `read_log`.

        It may have fewer, or none, and there be more: go on at its `next_position`.
        """
        ...

    def read_aggregate_backwards(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int
    ) -> list[EventRecord]:
        """At most `limit` events of one aggregate from a version down, the newest first; `max_bytes` as above."""
        ...

    def position_at(self, record_time: int) -> int:
        """The position of the first event recorded at or after a time (microseconds since 1970); else past the head."""
        ...

    def version_at(self, aggregate_id: str, record_time: int) -> int:
        """The same within one aggregate: a version, one past its newest if all are older."""
        ...

    def read_epochs(self) -> list[LogEpoch]:
        """The log's epochs, oldest first."""
        ...

    def read_figures(self) -> LogFigures:
        """How large the write DB is. Takes milliseconds: to be cached by who asks often."""
        ...

    def find_correlated(self, correlation_id: str, limit: int, max_bytes: int) -> EventsFound:
        """The first events with this correlation id, in position order: `limit` and `max_bytes` (as above) at most."""
        ...

    def find_caused(
        self, causation_ids: Sequence[str], limit: int, max_bytes: int, without_correlation_id: str | None = None
    ) -> EventsFound:
        """Events with one of these causation ids (at most 500), by causation id and position; bounded as above.

        With `without_correlation_id`, only those that do not carry that one.
        """
        ...

    def find_event(self, event_id: str, from_position: int, to_position: int) -> EventRecord | None:
        """The event with this id, if it lies in this range (both ends included), all of which is looked at."""
        ...

    def find_request(self, request_id: str, from_position: int, to_position: int) -> EventRecord | None:
        """The last event of the command with this request id in this range, as above."""
        ...

    def result_time(self, request_id: str) -> int | None:
        """When the command with this request id was committed, if its outcome is still kept."""
        ...


def found_within(found: Iterable[EventRecord], limit: int, max_bytes: int) -> EventsFound:
    """As many of the events as the bounds allow; looks one further than that."""
    kept: list[EventRecord] = []
    total = 0
    for event in found:
        total += len(event.data) + ENVELOPE_BYTES
        if len(kept) == limit or total > max_bytes:
            return EventsFound(kept, True)
        kept.append(event)
    return EventsFound(kept, False)


def first_at_or_after(record_time: int, past_last: int, time_of: Callable[[int], int]) -> int:
    """The first of the numbers 1, 2, … before `past_last` whose time is `record_time` or later; else `past_last`.

    By binary search: record times never run backwards, along the log as well as along each aggregate.
    """
    low, high = 1, past_last
    while low < high:
        middle = (low + high) // 2
        if time_of(middle) < record_time:
            low = middle + 1
        else:
            high = middle
    return low


def page_of(head: LogHead, chosen: Iterable[EventRecord], last: int, limit: int, max_bytes: int) -> LogPage:
    """A page of the `chosen` events up to position `last`: no more than `limit` and `max_bytes`, but at least one."""
    found: list[EventRecord] = []
    total = 0
    for event in chosen:
        total += len(event.data) + ENVELOPE_BYTES
        if found and (total > max_bytes or len(found) == limit):
            return LogPage(head, found, found[-1].position + 1)
        found.append(event)
    return LogPage(head, found, found[-1].position + 1 if len(found) == limit else last + 1)
