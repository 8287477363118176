from __future__ import annotations

import pytest

from cqrs.snapshots import history as module
from cqrs.snapshots.folding import Fold
from cqrs.snapshots.history import PastFold
from cqrs.snapshots.snapshot import Bound
from cqrs.store.memory import MemoryEventStore
from tests.orders_history import History, item
from tests.snapshots_support import TYPES, Loading, append_events, of, same, snapshot_at


def long_order(changes: int) -> History:
    history = History()
    history.register("c-1")
    history.create("o-1", "c-1")
    for number in range(changes):
        history.add_item("o-1", item("s", 1, "1"), str(11 + number))
    return history


def folded(past: PastFold) -> tuple[Fold, int]:
    steps = 1
    while not past.step():
        steps += 1
    assert past.fold is not None
    return past.fold, steps


@pytest.mark.parametrize("with_snapshots", [False, True])
def test_a_point_of_the_past_is_the_same_state_with_snapshots_and_without(with_snapshots: bool) -> None:
    history = long_order(30)
    store, loading = MemoryEventStore(), Loading()
    append_events(store, history.events)
    if with_snapshots:
        store.write_snapshots([snapshot_at(history.events, "o-1", version) for version in (5, 10, 20, 31)], keep=9)
    for event in of(history.events, "o-1"):
        wanted = Fold(TYPES, "o-1")
        wanted.apply(of(history.events, "o-1")[: event.version])
        for bound in (
            Bound(version=event.version),
            Bound(position=event.position),
            Bound(record_time=event.record_time),
        ):
            fold, _ = folded(PastFold(store, loading.snapshots, "o-1", bound))
            assert same(fold.result(), wanted.result())
            last = fold.last
            assert last is not None
            assert (last.position, last.record_time) == (event.position, event.record_time)
    assert (loading.count("used") > 0) == with_snapshots


def test_only_the_events_behind_the_nearest_snapshot_are_folded() -> None:
    history = long_order(30)
    store, loading = MemoryEventStore(), Loading()
    append_events(store, history.events)
    store.write_snapshots([snapshot_at(history.events, "o-1", version) for version in (5, 10, 20)], keep=9)
    fold, _ = folded(PastFold(store, loading.snapshots, "o-1", Bound(version=13)))
    assert (fold.version, fold.folded) == (13, 3)


def test_events_of_one_record_time_lie_on_one_side_of_it_also_with_a_snapshot_between_them() -> None:
    history = long_order(10)
    tied = [event._replace(record_time=1_000 + event.position // 4) for event in history.events]
    store, loading = MemoryEventStore(), Loading()
    append_events(store, tied)
    for bound in {event.record_time for event in tied}:
        store.drop_snapshots(None, 100)
        without, _ = folded(PastFold(store, loading.snapshots, "o-1", Bound(record_time=bound)))
        store.write_snapshots([snapshot_at(tied, "o-1", version) for version in range(1, 12)], keep=99)
        with_them, _ = folded(PastFold(store, loading.snapshots, "o-1", Bound(record_time=bound)))
        assert same(without.result(), with_them.result())


def test_a_long_way_is_gone_in_steps_of_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE_EVENTS", 10)
    history = long_order(99)
    store, loading = MemoryEventStore(), Loading()
    append_events(store, history.events)
    fold, steps = folded(PastFold(store, loading.snapshots, "o-1", Bound()))
    assert fold.version == 100
    assert steps == 3  # 4 pages of 10 events each, and the page that is empty in the third


def test_there_is_nothing_before_the_first_event_and_of_an_unknown_id() -> None:
    history = long_order(3)
    store, loading = MemoryEventStore(), Loading()
    append_events(store, history.events)
    for aggregate_id, bound in (("o-1", Bound(position=1)), ("o-1", Bound(record_time=0)), ("nobody", Bound())):
        fold, _ = folded(PastFold(store, loading.snapshots, aggregate_id, bound))
        assert fold.result() is None
