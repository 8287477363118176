"""Aggregate states in memory, cached between batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf.message import Message

from cqrs.errors import OrderstreamError


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
    """The newest states of the aggregates that were used last.

    Used by the committer alone, which never touches it from two threads at once.
    """

    def __init__(self, max_aggregates: int) -> None:
        # Not cachetools: each command asks for what is not there, or puts what is new, and pays 2 µs for that there.
        self._cached: OrderedDict[str, LoadedAggregate] = OrderedDict()
        self._max_aggregates = max_aggregates

    def get(self, aggregate_id: str) -> LoadedAggregate | None:
        """The cached state, if there is one."""
        found = self._cached.get(aggregate_id)
        if found is not None:
            self._cached.move_to_end(aggregate_id)
        return found

    def put(self, aggregate_id: str, aggregate: LoadedAggregate) -> None:
        """Remember a state that is committed."""
        cached = self._cached
        cached[aggregate_id] = aggregate
        cached.move_to_end(aggregate_id)
        if len(cached) > self._max_aggregates:
            cached.popitem(last=False)

    def evict(self, aggregate_ids: Iterable[str]) -> None:
        """Forget these."""
        for aggregate_id in aggregate_ids:
            self._cached.pop(aggregate_id, None)

    def clear(self) -> None:
        """Forget all: somebody else may have changed any of them."""
        self._cached.clear()

    def __len__(self) -> int:
        return len(self._cached)
