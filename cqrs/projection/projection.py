"""What a projection is: a pure function from events to row changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from google.protobuf.message import DecodeError, Message

from cqrs.errors import OrderstreamError
from cqrs.projection.rows import Needs, RowSet
from cqrs.projection.view import View
from cqrs.records import EventRecord


class Event(NamedTuple):
    """A recorded event with its message decoded."""

    position: int
    aggregate_type: str
    aggregate_id: str
    version: int
    record_time: int
    """Microseconds since 1970."""
    message: Any
    """The event message, of the class that `Projection.event_types` names."""


class Projection(Protocol):
    """Fills views from events. No I/O, no clock, no state of its own: the rows are all it knows.

    Given the same events it makes the same rows, however they are cut into batches.
    """

    @property
    def name(self) -> str:
        """Its name, for ever: checkpoints, consumers and subjects carry it."""

    @property
    def code_version(self) -> int:
        """Raised whenever the same events give other rows than before: what the older code wrote must be rebuilt."""

    @property
    def views(self) -> Sequence[View[Any]]:
        """Its tables."""

    @property
    def event_types(self) -> Mapping[str, type[Message] | None]:
        """Every event type that it knows, by full name; None for one that has no effect here."""

    def needs(self, events: Sequence[Event], rows: RowSet) -> Iterator[Needs]:
        """Which rows the events will touch. What is yielded is loaded, and `rows` has it, before the next step.

        It only saves time: a row that was not announced is loaded when `apply` asks for it.
        """

    def apply(self, event: Event, rows: RowSet) -> None:
        """Put the event's effect into `rows`."""


class CannotApply(OrderstreamError):
    """An event does not fit the projection or its rows. It is never skipped."""


def decode(projection: Projection, record: EventRecord) -> Event | None:
    """The event as the projection's `apply` takes it; None if it has no effect there.

    Raises:
        CannotApply: the projection does not know the type (a newer release wrote it), or the bytes are no such message.
    """
    try:
        message_class = projection.event_types[record.event_type]
    except KeyError:
        raise CannotApply(
            f"projection {projection.name} does not know events of type {record.event_type}: run a release that does"
        ) from None
    if message_class is None:
        return None
    try:
        message = message_class.FromString(record.data)
    except DecodeError as error:
        raise CannotApply(f"the data are no {record.event_type}: {error}") from error
    return Event(
        record.position, record.aggregate_type, record.aggregate_id, record.version, record.record_time, message
    )
