from __future__ import annotations

from cqrs.commit.aggregates import LoadedAggregate, UnreadableAggregate
from cqrs.records import EventRecord
from cqrs.snapshots.folding import Fold
from cqrs.snapshots.snapshot import Bound
from orderstream.orders.v1.order_pb2 import Order
from tests.orders_history import History, item
from tests.snapshots_support import TYPES, fold_all, same, snapshot_at


def history() -> list[EventRecord]:
    made = History()
    made.register("c-1")
    made.create("o-1", "c-1")
    made.add_item("o-1", item("b", 2, "5"), "20")
    made.rename("c-1", "Ada")
    made.address("o-1", "London")
    return made.events


def of_order() -> list[EventRecord]:
    return [event for event in history() if event.aggregate_id == "o-1"]


def test_nothing_folded_is_no_aggregate_and_nothing_to_capture() -> None:
    fold = Fold(TYPES, "o-1")
    assert fold.result() is None
    assert fold.capture() is None
    assert fold.last is None


def test_a_fold_resumed_behind_a_snapshot_ends_like_a_fold_from_the_beginning() -> None:
    snapshot = snapshot_at(history(), "o-1", 2)
    fold = Fold.resume(TYPES, snapshot, Order.FromString(snapshot.state))
    assert not fold.apply(of_order()[2:])
    assert same(fold.result(), fold_all(history(), "o-1"))
    assert (fold.version, fold.folded) == (3, 1)


def test_a_fold_stops_before_the_first_event_beyond_its_bound() -> None:
    events = of_order()
    for bound in (
        Bound(version=2),
        Bound(position=events[1].position),
        Bound(record_time=events[1].record_time),
    ):
        fold = Fold(TYPES, "o-1")
        assert fold.apply(events, bound)
        assert fold.version == 2
        assert fold.last == events[1]


def test_a_capture_names_the_last_event_that_is_in_the_state() -> None:
    fold = Fold(TYPES, "o-1")
    fold.apply(of_order())
    capture, last = fold.capture(), of_order()[-1]
    assert capture is not None
    assert (capture.version, capture.position, capture.record_time) == (last.version, last.position, last.record_time)
    assert isinstance(capture.state, Order)
    assert capture.state.shipping_address.city == "London"


def test_a_missing_version_makes_the_aggregate_unreadable_and_no_snapshot() -> None:
    first, _, third = of_order()
    fold = Fold(TYPES, "o-1")
    fold.apply([first, third])
    assert fold.result() == UnreadableAggregate("version 2 of o-1 is missing in the log")
    assert fold.capture() is None


def test_events_of_a_newer_release_make_the_aggregate_unreadable_and_no_snapshot() -> None:
    first, second, _ = of_order()
    for events in ([first._replace(aggregate_type="parcel")], [first, second._replace(event_type="x.v1.New")]):
        fold = Fold(TYPES, "o-1")
        fold.apply(events)
        state = fold.result()
        assert isinstance(state, UnreadableAggregate)
        assert "unknown here" in state.reason
        assert fold.capture() is None


def test_an_event_that_cannot_be_decoded_makes_only_its_aggregate_unreadable() -> None:
    first, second, third = of_order()
    fold = Fold(TYPES, "o-1")
    fold.apply([first, second._replace(data=b"\xff"), third])
    state = fold.result()
    assert isinstance(state, UnreadableAggregate)
    assert "log verify" in state.reason
    assert isinstance(fold_all(history(), "c-1"), LoadedAggregate)
