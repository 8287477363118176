"""Folding an aggregate's events one after the other, from the beginning or from a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError, Message

from cqrs.commit.aggregates import AggregateState, LoadedAggregate, UnreadableAggregate
from cqrs.commit.command import AggregateType
from cqrs.records import EventRecord
from cqrs.snapshots.snapshot import Bound, Capture, Snapshot


class Fold:
    """One aggregate in the making. Give it the events in version order, without a gap; it keeps none of them."""

    __slots__ = ("_last", "_state", "_type", "_types", "_unreadable", "aggregate_id", "folded", "version")

    def __init__(self, types: Mapping[str, AggregateType], aggregate_id: str) -> None:
        """Begin with nothing: the next event is version 1."""
        self._types = types
        self._type: AggregateType | None = None
        self._state: Message | None = None
        self._last: EventRecord | Snapshot | None = None
        self._unreadable = ""
        self.aggregate_id = aggregate_id
        self.version = 0
        """Of the last event that was looked at."""
        self.folded = 0
        """How many events were applied."""

    @classmethod
    def resume(cls, types: Mapping[str, AggregateType], snapshot: Snapshot, state: Message) -> Fold:
        """Begin behind a snapshot. `state` is what it holds, and becomes the fold's own."""
        fold = cls(types, snapshot.aggregate_id)
        fold._type = types[snapshot.aggregate_type]
        fold._state = state
        fold._last = snapshot
        fold.version = snapshot.version
        return fold

    @property
    def last(self) -> EventRecord | Snapshot | None:
        """The last event that was applied, or the snapshot if none was; None: nothing yet."""
        return self._last

    def apply(self, events: Iterable[EventRecord], bound: Bound = Bound()) -> bool:  # noqa: B008 - is immutable
        """Apply these events, up to and including `bound`; returns whether one of them lay beyond it."""
        for event in events:
            if (
                event.position > bound.position
                or event.record_time > bound.record_time
                or event.version > bound.version
            ):
                return True
            if not self._unreadable:
                self._apply(event)
            self.version = event.version
        return False

    def _apply(self, event: EventRecord) -> None:
        if event.version != self.version + 1:
            self._unreadable = f"version {self.version + 1} of {event.aggregate_id} is missing in the log"
            return
        type_ = self._type
        if type_ is None:
            self._type = type_ = self._types.get(event.aggregate_type)
            if type_ is None:
                self._unreadable = f"event {event.position} is of aggregate type {event.aggregate_type}, unknown here"
                return
            self._state = type_.state()
        message = type_.events.get(event.event_type)
        if message is None:
            self._unreadable = f"event {event.position} is a {event.event_type}, unknown here"
            return
        try:
            decoded = message.FromString(event.data)
        except DecodeError:
            self._unreadable = f"event {event.position} cannot be decoded: run `orderstream log verify`"
            return
        type_.evolve(self._state, decoded)
        self._last = event
        self.folded += 1

    def result(self) -> AggregateState:
        """The aggregate as it is now. Do not apply more: its state is shared from here on."""
        if self._unreadable:
            return UnreadableAggregate(self._unreadable)
        if self._type is None or self._state is None:
            return None
        return LoadedAggregate(self._type.name, self._state, self.version)

    def capture(self) -> Capture | None:
        """What a snapshot of it is made from; None if there is no state. Do not apply more."""
        last, state = self._last, self._state
        if last is None or state is None or self._unreadable:
            return None
        return Capture(
            last.aggregate_id,
            last.version,
            last.position,
            last.hash,
            last.aggregate_type,
            last.record_time,
            state,
        )
