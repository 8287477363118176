from __future__ import annotations

from dataclasses import replace

import pytest

from command_server.aggregates import AGGREGATE_TYPES, CUSTOMER, ORDER
from cqrs.snapshots.fingerprint import fingerprint_of_type
from cqrs.snapshots.rules import rules_for
from cqrs.snapshots.snapshot import Bound
from cqrs.store.memory import MemoryEventStore
from tests.orders_history import History, item
from tests.snapshots_support import (
    DAMAGES,
    Loading,
    append_events,
    fold_all,
    same,
    sealed,
    snapshot_at,
)


def store_with(history: History) -> MemoryEventStore:
    store = MemoryEventStore()
    append_events(store, history.events)
    return store


def order_of_ten_events() -> History:
    history = History()
    history.register("c-1")
    history.create("o-1", "c-1")
    for number in range(9):
        history.add_item("o-1", item(f"s-{number}", 1, "1"), str(11 + number))
    return history


def test_types_have_rules_where_snapshots_are_wanted() -> None:
    rules = rules_for(AGGREGATE_TYPES, {"order": 100, "customer": 0})
    assert rules == {"order": (100, fingerprint_of_type(ORDER))}
    assert rules_for(AGGREGATE_TYPES, {}) == {}


def test_a_type_whose_fold_cannot_be_told_has_no_snapshots_and_the_operator_knows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Folding:
        def evolve(self, state: object, event: object) -> None:
            """No plain function."""

    untold = replace(CUSTOMER, evolve=Folding().evolve)
    assert set(rules_for([ORDER, untold], {"order": 5, "customer": 5})) == {"order"}
    (told,) = caplog.messages
    assert "no snapshots are taken or used" in told
    assert "customer" in told


def test_a_right_snapshot_is_where_a_fold_begins() -> None:
    history = order_of_ten_events()
    store, loading = store_with(history), Loading()
    store.write_snapshots([snapshot_at(history.events, "o-1", 7)], keep=5)
    fold = loading.snapshots.start(store, "o-1", Bound())
    assert (fold.version, loading.count("used")) == (7, 1)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("checksum", "checksum"),
        ("truncated", "checksum"),
        ("checksum itself", "checksum"),
        ("branch", "branch"),
        ("position", "branch"),
        ("ahead", "ahead"),
        ("undecodable", "undecodable"),
    ],
)
def test_a_snapshot_of_no_use_is_counted_and_told_once_and_an_older_one_is_used(
    damage: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    history = order_of_ten_events()
    store, loading = store_with(history), Loading()
    right = snapshot_at(history.events, "o-1", 3)
    store.write_snapshots([right], keep=5)
    wrong = DAMAGES[damage](snapshot_at(history.events, "o-1", 8))
    store._snapshots[wrong.aggregate_id, wrong.version, wrong.fingerprint] = wrong
    for _ in range(2):
        assert loading.snapshots.start(store, "o-1", Bound()).version == 3
    assert loading.count("refused", reason=reason) == 2
    (told,) = caplog.messages
    assert f"'reason': '{reason}'" in told


def test_snapshots_of_another_release_are_not_even_looked_at() -> None:
    history = order_of_ten_events()
    store, loading = store_with(history), Loading()
    store.write_snapshots([sealed(snapshot_at(history.events, "o-1", 8), fingerprint=b"x" * 32)], keep=5)
    assert loading.snapshots.start(store, "o-1", Bound()).version == 0
    state = loading.loader.load(store, ["o-1"])["o-1"]
    assert same(state, fold_all(history.events, "o-1"))
    assert loading.count("used") == 0


def test_a_candidate_with_a_fingerprint_of_no_type_is_refused_whoever_hands_it_over() -> None:
    history = order_of_ten_events()
    store, loading = store_with(history), Loading()
    foreign = sealed(snapshot_at(history.events, "o-1", 8), fingerprint=b"x" * 32)
    store.write_snapshots([foreign], keep=5)
    candidate = store.read_snapshot("o-1", Bound(), [b"x" * 32])
    fold, useless = loading.snapshots.start_from(store, "o-1", candidate)
    assert (fold.version, useless) == (0, True)
    assert loading.count("refused", reason="fingerprint") == 1
