"""A tiny domain for the committer's tests: counters that are raised, one event each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from prometheus_client import CollectorRegistry

from cqrs.commit.aggregates import AggregateCache
from cqrs.commit.appender import Appender
from cqrs.commit.command import AggregateType, Command, Outcome, fingerprint_of
from cqrs.commit.committer import Committer
from cqrs.commit.metrics import CommitMetrics
from cqrs.commit.plan import Planner
from cqrs.commit.queue import CommitLimits
from cqrs.snapshots.loader import AggregateLoader
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import Snapshots
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


def respond(state: Int64Value, version: int, token: str) -> bytes:
    return StringValue(value=f"{state.value} {version} {token}").SerializeToString()


@dataclass
class Submitted:
    """One command as it is handed to the committer."""

    command: Command
    deadline: float | None = None
    size_bytes: int = 100
    commands: int = 1
    paced: bool = False
    future: asyncio.Future[Outcome] = field(init=False)

    @property
    def abandoned(self) -> bool:
        return self.future.done()

    def prepare(self) -> Sequence[Command | Exception]:
        return [self.command]

    def answer(self, outcomes: Sequence[Outcome | Exception]) -> None:
        (outcome,) = outcomes
        if isinstance(outcome, Exception):
            self.refuse(outcome)
        elif not self.future.done():
            self.future.set_result(outcome)

    def refuse(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


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


def plain_loader() -> AggregateLoader:
    """Loads counters without snapshots."""
    metrics = SnapshotMetrics(CollectorRegistry())
    return AggregateLoader(Snapshots([COUNTER, OTHER], {}, metrics), metrics)


def values(outcome: Outcome | Exception) -> tuple[int, int]:
    assert isinstance(outcome, Outcome), outcome
    value, version, _ = StringValue.FromString(outcome.response).value.split()
    return int(value), int(version)


class Process:
    """What appends in one process, without what gathers batches there."""

    def __init__(self, store: EventStore, loader: AggregateLoader | None = None) -> None:
        self.appender = Appender(
            store,
            AggregateCache(1000),
            loader or plain_loader(),
            Planner(100_000, CounterIsFull),
            CommitMetrics(CollectorRegistry()),
        )
        self._ahead = False

    def was_ahead(self) -> bool:
        """Whether the last batch was decided before its transaction began, of states in memory."""
        return self._ahead

    def execute(self, *commands: Command) -> list[tuple[int, int]]:
        """(value, version) of each counter after its command."""
        plan = self.appender.decide_ahead(commands)
        self._ahead = plan is not None
        done = self.appender.execute(commands, plan, lambda: None)
        self.appender.accept(done)
        return [values(outcome) for outcome in done.outcomes]


class Bench:
    """A committer at work, and what it told."""

    def __init__(self, store: EventStore, limits: CommitLimits, max_event_bytes: int) -> None:
        self.heads: list[int] = []
        self.health: list[str | None] = []
        metrics = CommitMetrics(CollectorRegistry())
        planner = Planner(max_event_bytes, CounterIsFull)
        self.committer = Committer(
            Appender(store, AggregateCache(1000), plain_loader(), planner, metrics),
            metrics,
            limits=limits,
            on_commit=lambda events, _states: self.heads.append(events[-1].position),
            on_store_health=self.health.append,
        )

    async def submit(self, submitted: Submitted) -> Outcome:
        """Its outcome. Cancelled while it waits, it is dropped."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        submitted.future = future
        self.committer.submit(submitted)
        del submitted  # an error's traceback has this frame
        return await future


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
