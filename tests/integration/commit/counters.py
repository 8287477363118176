"""A tiny domain for the committer's tests: counters that are raised, one event each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from prometheus_client import CollectorRegistry

from cqrs.commit.aggregates import AggregateCache
from cqrs.commit.command import AggregateType, Command, fingerprint_of
from cqrs.commit.committer import Committer
from cqrs.commit.metrics import CommitMetrics
from cqrs.commit.plan import Planner
from cqrs.commit.queue import CommitLimits
from cqrs.store.port import EventStore


def _evolve(state: Int64Value, _event: Message) -> None:
    state.value += 1


COUNTER = AggregateType("counter", Int64Value, _evolve, {StringValue.DESCRIPTOR.full_name: StringValue})
OTHER = AggregateType("other", Int64Value, _evolve, COUNTER.events)


class CounterIsFull(Exception):
    """A rule of this domain."""


class Decider:
    """Decides to raise a counter, and remembers which states it saw."""

    def __init__(self, *, limit: int = 10**9, changes: bool = True, payload: str = "raised") -> None:
        self.seen: list[int] = []
        self._limit, self._changes, self._payload = limit, changes, payload

    def __call__(self, state: Int64Value | None, _now: Timestamp, _references: Sequence[Any]) -> Sequence[Message]:
        value = 0 if state is None else state.value
        self.seen.append(value)
        if value >= self._limit:
            raise CounterIsFull
        return [StringValue(value=self._payload)] if self._changes or state is None else []


def respond(state: Int64Value, version: int, token: str) -> Message:
    return StringValue(value=f"{state.value} {version} {token}")


@dataclass
class Submitted:
    """A command as it is handed to the committer."""

    command: Command
    deadline: float | None = None
    size_bytes: int = 100

    def prepare(self) -> Command:
        return self.command


def submit_counter(*arguments: str, deadline: float | None = None, **options: Any) -> Submitted:
    """`raise_counter`, to be handed to the committer."""
    return Submitted(raise_counter(*arguments, **options), deadline)


def raise_counter(
    counter: str = "c",
    *,
    decide: Decider | None = None,
    request_id: str | None = None,
    expected_version: int | None = None,
    aggregate_type: AggregateType = COUNTER,
    payload: str = "",
) -> Command:
    return Command(
        method="/counters/Raise",
        aggregate_type=aggregate_type,
        aggregate_id=counter,
        decide=decide or Decider(),
        respond=respond,
        fingerprint=fingerprint_of("/counters/Raise", StringValue(value=f"{counter} {payload}")),
        request_id=request_id,
        expected_version=expected_version,
    )


class Bench:
    """A committer at work, and what it told."""

    def __init__(self, store: EventStore, limits: CommitLimits, max_event_bytes: int) -> None:
        self.heads: list[int] = []
        self.health: list[str | None] = []
        self.committer = Committer(
            store,
            AggregateCache([COUNTER, OTHER], 1000),
            Planner(max_event_bytes, CounterIsFull),
            CommitMetrics(CollectorRegistry()),
            limits=limits,
            on_commit=lambda events: self.heads.append(events[-1].position),
            on_store_health=self.health.append,
        )


@asynccontextmanager
async def running(
    store: EventStore, limits: CommitLimits | None = None, max_event_bytes: int = 100_000
) -> AsyncIterator[Bench]:
    """A committer that runs while the context is open, and has committed everything when it is left."""
    bench = Bench(store, limits or CommitLimits(), max_event_bytes)
    task = asyncio.create_task(bench.committer.run())
    try:
        yield bench
    finally:
        bench.committer.close()
        await asyncio.wait_for(task, 30)
        bench.committer.release()
