"""Aggregate states in memory: folded from events, cached between batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cachetools import LRUCache
from google.protobuf.message import Message

from cqrs.commit.command import AggregateType
from cqrs.errors import OrderstreamError
from cqrs.records import EventRecord


class UnknownEvent(OrderstreamError):
    """The log has an event that this code has no aggregate or message for: it was written by a newer release."""


class LoadedAggregate(NamedTuple):
    """An aggregate at its newest version. The state is shared: copy before changing it."""

    type_name: str
    state: Message
    version: int


class UnreadableAggregate(NamedTuple):
    """An aggregate that this code cannot fold. Commands that need it fail, the others of their batch do not."""

    reason: str


AggregateState = LoadedAggregate | UnreadableAggregate | None
"""None: it does not exist."""


class AggregateCache:
    """The newest states of the aggregates that were used last, and the fold that makes them.

    Used by the committer alone, which never touches it from two threads at once.
    """

    def __init__(self, types: Iterable[AggregateType], max_aggregates: int) -> None:
        self._types: Mapping[str, AggregateType] = {type_.name: type_ for type_ in types}
        self._cached: LRUCache[str, LoadedAggregate] = LRUCache(max_aggregates)

    def get(self, aggregate_id: str) -> LoadedAggregate | None:
        """The cached state, if there is one."""
        return self._cached.get(aggregate_id)

    def put(self, aggregate_id: str, aggregate: LoadedAggregate) -> None:
        """Remember a state that is committed."""
        self._cached[aggregate_id] = aggregate

    def evict(self, aggregate_ids: Iterable[str]) -> None:
        """Forget these."""
        for aggregate_id in aggregate_ids:
            self._cached.pop(aggregate_id, None)

    def clear(self) -> None:
        """Forget all: somebody else may have changed any of them."""
        self._cached.clear()

    def __len__(self) -> int:
        return len(self._cached)

    def fold(self, events: Sequence[EventRecord]) -> AggregateState:
        """The aggregate after all its `events`; None if there are none."""
        if not events:
            return None
        first = events[0]
        type_ = self._types.get(first.aggregate_type)
        if type_ is None:
            return UnreadableAggregate(
                f"event {first.position} is of aggregate type {first.aggregate_type}, unknown here"
            )
        state = type_.state()
        for event in events:
            message = type_.events.get(event.event_type)
            if message is None:
                return UnreadableAggregate(f"event {event.position} is a {event.event_type}, unknown here")
            type_.evolve(state, message.FromString(event.data))
        return LoadedAggregate(type_.name, state, events[-1].version)
