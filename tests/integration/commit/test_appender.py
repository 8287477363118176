"""Invariant 2 at the appender: decided ahead of the lock where that is right, and under it where it must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cqrs.commit import appender as appender_module
from cqrs.commit.aggregates import AggregateState
from cqrs.commit.command import Outcome
from cqrs.commit.plan import Plan
from cqrs.errors import HistoryDiverged
from cqrs.records import EventRecord
from cqrs.snapshots.loader import AggregateLoader
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import Snapshots
from cqrs.store.memory import MemoryEventStore
from cqrs.store.port import AggregateReader, EventStore
from cqrs.store.sql import SqlEventStore
from tests.integration.commit.counters import COUNTER, OTHER, Decider, Process, raise_counter, values
from tests.integration.logs import assert_one_gapless_chain, new_write_db

UNDER_LOCK, BEFORE = "under the lock", "before it"


class SpyingLoader(AggregateLoader):
    """Remembers what was loaded, and where."""

    def __init__(self, store: EventStore) -> None:
        metrics = SnapshotMetrics(CollectorRegistry())
        super().__init__(Snapshots([COUNTER, OTHER], {}, metrics), metrics)
        self.loads: list[tuple[str, list[str]]] = []
        self._store = store

    def load(self, reader: AggregateReader, aggregate_ids: Sequence[str]) -> dict[str, AggregateState]:
        self.loads.append((BEFORE if reader is self._store else UNDER_LOCK, list(aggregate_ids)))
        return super().load(reader, aggregate_ids)

    def take(self) -> list[tuple[str, list[str]]]:
        loads, self.loads = self.loads, []
        return loads


class Spied(Process):
    """A process of which is known what it loads."""

    def __init__(self, store: EventStore) -> None:
        self.loader = SpyingLoader(store)
        super().__init__(store, self.loader)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[EventStore, EventStore]]:
    """One log, as two processes have it open."""
    if request.param == "memory":
        store = MemoryEventStore()
        yield store, store
    else:
        sqlite = request.param == "sqlite"
        url = new_write_db(tmp_path) if sqlite else request.getfixturevalue("postgresql_write_db")
        mine, theirs = SqlEventStore(url), SqlEventStore(url)
        yield mine, theirs
        mine.close()
        theirs.close()


@pytest.fixture
def me(stores: tuple[EventStore, EventStore]) -> Spied:
    return Spied(stores[0])


@pytest.fixture
def rival(stores: tuple[EventStore, EventStore]) -> Process:
    return Process(stores[1])


def test_a_batch_whose_states_are_in_memory_is_decided_ahead_of_the_lock(me: Spied) -> None:
    assert me.execute(raise_counter("a")) == [(1, 1)]
    assert not me.was_ahead()  # where the log ends was not known yet
    me.loader.take()
    assert me.execute(raise_counter("a")) == [(2, 2)]
    assert me.was_ahead()
    assert me.loader.take() == []


def test_a_rival_means_to_load_again_what_it_touched_and_to_decide_again_under_the_lock(
    me: Spied, rival: Process
) -> None:
    me.execute(raise_counter("a"), raise_counter("b"))
    rival.execute(raise_counter("b"), raise_counter("c"))
    me.loader.take()
    decide = Decider()
    assert me.execute(raise_counter("a", decide=decide), raise_counter("b", decide=decide)) == [(2, 2), (3, 3)]
    assert me.was_ahead()
    assert me.loader.take() == [(UNDER_LOCK, ["b"])]
    assert decide.seen == [1, 1, 1, 2]  # first of the states in memory, then of those under the lock


def test_who_has_met_a_rival_decides_under_the_lock_until_it_has_met_none(me: Spied, rival: Process) -> None:
    me.execute(raise_counter("a"))
    rival.execute(raise_counter("a"))
    for turn in range(3):
        me.execute(raise_counter("a"))
        rival.execute(raise_counter("a"))
        assert me.appender.decide_ahead([raise_counter("a")]) is None, turn
    decide = Decider()
    assert me.execute(raise_counter("a", decide=decide)) == [(9, 9)]
    assert decide.seen == [8]  # not of a state that was out of date, too
    assert me.execute(raise_counter("a", decide=decide)) == [(10, 10)]
    me.execute(raise_counter("a"))
    assert me.was_ahead()


def test_what_is_not_in_memory_is_loaded_before_the_lock_also_beside_rivals(
    me: Spied, rival: Process, stores: tuple[EventStore, EventStore]
) -> None:
    rival.execute(*(raise_counter(name) for name in ("cold", "icy", "warm")))
    me.execute(raise_counter("warm"))
    assert me.execute(raise_counter("warm")) == [(3, 3)]
    me.loader.take()
    assert me.execute(raise_counter("cold")) == [(2, 2)]
    assert me.loader.take() == [(BEFORE, ["cold"])]
    rival.execute(raise_counter("other"))
    me.execute(raise_counter("warm"))
    me.loader.take()
    assert me.execute(raise_counter("icy")) == [(2, 2)]
    assert me.loader.take() == [(BEFORE, ["icy"])]
    assert_one_gapless_chain(stores[0].read_log(1, 100))


def test_an_aggregate_that_is_newer_than_the_known_head_is_loaded_again_under_the_lock(
    me: Spied, rival: Process
) -> None:
    me.execute(raise_counter("a"))
    me.execute(raise_counter("a"))
    rival.execute(raise_counter("new"))
    me.loader.take()
    assert me.execute(raise_counter("new")) == [(2, 2)]
    assert me.loader.take() == [(BEFORE, ["new"]), (UNDER_LOCK, ["new"])]


def test_after_very_many_events_of_others_nothing_in_memory_is_relied_on(
    me: Spied, rival: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender_module, "_CHANGES_LOOKED_AT", 3)
    me.execute(raise_counter("a"))
    rival.execute(*(raise_counter("b") for _ in range(4)))
    me.execute(raise_counter("c"))
    assert me.appender.cached_aggregates == 1
    me.loader.take()
    assert me.execute(raise_counter("a")) == [(2, 2)]
    assert me.loader.take() == [(BEFORE, ["a"])]


def test_a_request_id_that_a_rival_has_committed_is_answered_with_its_outcome(me: Spied, rival: Process) -> None:
    me.execute(raise_counter("a"))
    command = raise_counter("a", request_id="r")
    theirs = rival.execute(command)
    plan = me.appender.decide_ahead([command])
    mine = me.appender.execute([command], plan, lambda: None)
    assert [values(outcome) for outcome in mine.outcomes] == theirs
    assert [outcome.replayed for outcome in mine.outcomes if isinstance(outcome, Outcome)] == [True]
    assert not mine.writes


class Restored:
    """A log that loses events, and what an appender says to that."""

    def __init__(self) -> None:
        self.store = MemoryEventStore()
        self.me = Process(self.store)
        self.me.execute(*(raise_counter("a") for _ in range(5)))

    def lose(self, events: int, then: Sequence[EventRecord] = ()) -> None:
        kept = self.store.read_log(1, 5 - events)
        self.store._events[:] = [*kept, *then]
        last = self.store._events[-1]
        self.store._head = self.store._head._replace(position=last.position, hash=last.hash)

    def command(self) -> Plan:
        return self.me.appender.execute([raise_counter("a")], None, lambda: None)


def test_a_log_that_lost_what_this_process_has_seen_is_not_continued() -> None:
    log = Restored()
    log.lose(2)
    for _ in range(2):  # it is not forgotten by failing once
        with pytest.raises(HistoryDiverged, match=r"ends at position 3 and has no event at position 5.*log fork"):
            log.command()
        log.me.appender.forget()
    with pytest.raises(HistoryDiverged):
        log.me.appender.probe()
    assert len(log.store.read_log(1, 10)) == 3


def test_another_event_where_this_process_has_seen_the_end_is_another_history() -> None:
    log = Restored()
    other = MemoryEventStore()
    Process(other).execute(*(raise_counter("a") for _ in range(5)))
    log.lose(1, other.read_log(5, 1))
    with pytest.raises(HistoryDiverged, match="has another event at position 5"):
        log.command()


def test_a_loss_that_an_operator_has_recorded_is_accepted_with_nothing_left_in_memory() -> None:
    log = Restored()
    log.lose(2)
    with pytest.raises(HistoryDiverged):
        log.command()
    log.store._head = log.store._head._replace(epoch="11111111-1111-4111-8111-111111111111")
    log.me.appender.probe()
    assert log.me.execute(raise_counter("a")) == [(4, 4)]
    assert_one_gapless_chain(log.store.read_log(1, 10))
