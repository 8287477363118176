from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cqrs import failpoints
from cqrs.commit.aggregates import AggregateState
from cqrs.records import EventRecord
from cqrs.serving.stop import StopSignal
from cqrs.snapshots import writer as module
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.snapshot import Capture
from cqrs.snapshots.writer import SnapshotWriter
from cqrs.store.memory import MemoryEventStore
from cqrs.store.port import EventStore, SnapshotStore
from cqrs.store.sql import SqlEventStore
from tests.integration.logs import new_write_db
from tests.orders_history import History, item
from tests.snapshots_support import RULES, append_events, fold_all, of, snapshot_at

FAILPOINT = "snapshots.before_write"


def history(orders: int = 1, changes: int = 19) -> History:
    made = History()
    made.register("c-1")
    for order in range(orders):
        made.create(f"o-{order}", "c-1")
        for number in range(changes):
            made.add_item(f"o-{order}", item(f"s-{number}", 1, "1"), str(11 + number))
    return made


class Rig:
    """A snapshot writer, and what it counts."""

    def __init__(self, store: SnapshotStore, queue_length: int) -> None:
        self.registry = CollectorRegistry()
        self.stop = StopSignal()
        self.writer = SnapshotWriter(store, RULES, SnapshotMetrics(self.registry), keep=50, queue_length=queue_length)

    def count(self, name: str) -> int:
        return int(self.registry.get_sample_value(f"orderstream_snapshots_{name}_total") or 0)

    async def until(self, name: str, value: int) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        while self.count(name) < value:
            assert asyncio.get_running_loop().time() < deadline, f"{name} is {self.count(name)}, not {value}"
            await asyncio.sleep(0.01)

    def commit(self, events: Sequence[EventRecord], *new: EventRecord) -> None:
        """Tell the writer of a commit of the last events of this log."""
        states: dict[str, AggregateState] = {event.aggregate_id: fold_all(events, event.aggregate_id) for event in new}
        self.writer.committed(new, states)


async def on_this_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


@asynccontextmanager
async def writing(store: SnapshotStore, *, queue_length: int = 1000, runs: bool = True) -> AsyncIterator[Rig]:
    rig = Rig(store, queue_length)
    task = asyncio.create_task(rig.writer.run(on_this_thread, rig.stop)) if runs else None
    try:
        yield rig
    finally:
        rig.stop.set("the test is over")
        if task is not None:
            await asyncio.wait_for(task, 20)
        rig.writer.release()


def filled(history: History) -> MemoryEventStore:
    store = MemoryEventStore()
    append_events(store, history.events)
    return store


def test_a_snapshot_is_taken_at_each_multiple_and_at_nothing_else() -> None:
    async def scenario() -> None:
        made = history()
        store = filled(made)
        async with writing(store) as rig:
            for position, event in enumerate(made.events, start=1):
                rig.commit(made.events[:position], event)
                taken = event.version // 5 if event.aggregate_id == "o-0" else 0
                await rig.until("taken", taken)
            await asyncio.sleep(0.15)
            assert rig.count("taken") == store.count_snapshots() == 4
        assert set(store._snapshots.values()) == {snapshot_at(made.events, "o-0", each) for each in (5, 10, 15, 20)}

    asyncio.run(scenario())


def test_a_commit_that_goes_past_a_multiple_is_taken_where_it_ends() -> None:
    async def scenario() -> None:
        made = history(orders=2, changes=6)
        store = filled(made)
        async with writing(store) as rig:
            rig.commit(made.events, *made.events)
            await rig.until("taken", 2)
        wanted = {snapshot_at(made.events, id_, 7) for id_ in ("o-0", "o-1")}
        assert set(store._snapshots.values()) == wanted

    asyncio.run(scenario())


def test_what_waits_is_bounded_and_the_newest_of_an_aggregate_is_what_waits() -> None:
    async def scenario() -> None:
        made = history(orders=5, changes=9)
        store = filled(made)
        async with writing(store, queue_length=3, runs=False) as rig:
            for version in (10, 5):
                for order in range(5):
                    past = of(made.events, f"o-{order}")[:version]
                    rig.commit(past, past[-1])
            assert rig.count("dropped") == 4
            waiting = rig.writer._waiting
            assert {id_: capture.version for id_, capture in waiting.items()} == dict.fromkeys(
                ("o-0", "o-1", "o-2"), 10
            )

    asyncio.run(scenario())


def test_a_write_db_that_refuses_costs_snapshots_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_AFTER_FAILURE_SECONDS", 0.1)

    async def scenario() -> None:
        made = history(orders=2, changes=4)
        store = SqlEventStore(new_write_db(tmp_path))
        append_events(store, made.events)
        with store._side_engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE snapshots RENAME TO away")
        async with writing(store) as rig:
            rig.commit(made.events[:6], made.events[5])
            await rig.until("failed", 1)
            with store._side_engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE away RENAME TO snapshots")
            rig.commit(made.events, made.events[-1])
            await rig.until("taken", 1)
        assert store.count_snapshots() == 1
        store.close()

    asyncio.run(scenario())


def test_snapshots_are_offered_from_any_thread_and_in_vain_when_the_loop_has_gone() -> None:
    made = history()
    store = filled(made)
    past = of(made.events, "o-0")
    capture = Capture("o-0", 20, past[-1].position, past[-1].hash, "order", past[-1].record_time, _state(past))
    writers: list[SnapshotWriter] = []

    async def scenario() -> None:
        async with writing(store) as rig:
            await asyncio.to_thread(rig.writer.offer, capture)
            await rig.until("taken", 1)
            writers.append(rig.writer)

    asyncio.run(scenario())
    writers[0].offer(capture)
    assert list(store._snapshots.values()) == [snapshot_at(made.events, "o-0", 20)]


def test_on_a_database_of_one_writer_snapshots_are_written_where_commits_are(tmp_path: Path) -> None:
    store: EventStore = SqlEventStore(new_write_db(tmp_path))
    assert not store.writes_snapshots_beside_commits
    made = history()
    append_events(store, made.events)
    threads: list[str] = []

    async def scenario() -> None:
        async def on_writer(work: Callable[[], Any]) -> Any:
            def there() -> Any:
                threads.append(threading.current_thread().name)
                return work()

            return await asyncio.to_thread(there)

        rig = Rig(store, 10)
        task = asyncio.create_task(rig.writer.run(on_writer, rig.stop))
        rig.commit(made.events, made.events[-1])
        await rig.until("taken", 1)
        rig.stop.set("the test is over")
        await asyncio.wait_for(task, 20)
        rig.writer.release()

    asyncio.run(scenario())
    assert len(threads) == 1
    assert store.count_snapshots() == 1
    store.close()


def test_a_writer_that_hangs_keeps_nobody_from_committing_and_stops_when_it_can() -> None:
    async def scenario() -> None:
        made = history(orders=2, changes=4)
        store = filled(made)
        reached, go_on = threading.Event(), threading.Event()

        def hang() -> None:
            reached.set()
            assert go_on.wait(20)

        with failpoints.arm(FAILPOINT, hang):
            async with writing(store) as rig:
                rig.commit(made.events[:6], made.events[5])
                assert await asyncio.to_thread(reached.wait, 20)
                rig.commit(made.events, made.events[-1])
                assert store.count_snapshots() == 0
                go_on.set()
                await rig.until("taken", 2)

    asyncio.run(scenario())


def _state(events: Sequence[EventRecord]) -> Any:
    folded = fold_all(events, events[0].aggregate_id)
    assert folded is not None
    return folded.state  # type: ignore[union-attr]  # it is readable
