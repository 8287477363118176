"""What every event store guarantees: the real one and the one in memory."""

from __future__ import annotations

import threading

import pytest

from cqrs.records import GENESIS_HASH
from cqrs.store.port import ENVELOPE_BYTES, EventStore, StoredResult, StoreError, WriteRefused
from cqrs.store.sql import SqlEventStore
from tests.integration.logs import append, assert_one_gapless_chain, events_after, head_of


def url_of(store: SqlEventStore) -> str:
    return store._write_engine.url.render_as_string(hide_password=False)


def result(request_id: str, record_time: int = 1) -> StoredResult:
    return StoredResult(request_id, b"f" * 32, b"response of " + request_id.encode(), record_time)


def test_a_new_log_is_empty_and_has_an_epoch(store: EventStore) -> None:
    head = store.read_head()
    assert (head.position, head.hash, head.record_time) == (0, GENESIS_HASH, 0)
    assert len(head.epoch) == 36
    assert store.read_log(1, 10) == []


def test_events_are_read_back_as_they_were_written(store: EventStore) -> None:
    written = append(store, [("a", 1), ("b", 1), ("a", 2)], data=bytes(range(256)))
    assert store.read_log(1, 10) == written
    assert store.read_aggregate("a", 1, 10) == [written[0], written[2]]
    assert store.read_head() == head_of(written, store.read_head().epoch)
    assert_one_gapless_chain(store.read_log(1, 10))


def test_a_transaction_that_is_not_committed_leaves_nothing(store: EventStore) -> None:
    with store.begin_append() as transaction:
        events = events_after(transaction.head, [("a", 1)])
        transaction.append(events, [result("r")], head_of(events, transaction.head.epoch))
    assert store.read_head().position == 0
    assert store.read_log(1, 10) == []
    with store.begin_append() as transaction:
        assert transaction.find_results(["r"]) == {}


def test_a_version_is_written_once_and_a_batch_is_all_or_nothing(store: EventStore) -> None:
    first = append(store, [("a", 1)])
    with pytest.raises(StoreError):
        append(store, [("b", 1), ("a", 1)])
    assert store.read_log(1, 10) == first
    assert store.read_head().position == 1
    append(store, [("b", 1)])  # the store works on after a failure
    assert_one_gapless_chain(store.read_log(1, 10))


def test_the_log_is_read_in_pages_bounded_in_events_and_bytes(store: EventStore) -> None:
    written = append(store, [("a", version) for version in range(1, 8)], data=b"x" * 100)
    assert store.read_log(3, 2) == written[2:4]
    assert store.read_log(3, 5, max_bytes=2 * (100 + ENVELOPE_BYTES)) == written[2:4]
    assert store.read_log(3, 5, max_bytes=1) == written[2:3]
    assert store.read_log(8, 5) == []
    assert store.read_aggregate("a", 6, 10) == written[5:]
    assert store.read_aggregate("a", 2, 10, max_bytes=1) == written[1:2]


def test_the_tails_of_many_aggregates_are_read_at_once_each_in_version_order(store: EventStore) -> None:
    ids = [f"id-{number}" for number in range(700)]
    append(store, [(id_, 1) for id_ in ids])
    append(store, [(id_, 2) for id_ in reversed(ids)])
    outlook = store.read_outlook([*ids, "nobody"], [])
    assert {id_: found.newest_version for id_, found in outlook.items()} == dict.fromkeys(ids, 2)
    tails = store.read_tails({id_: range(number % 2 + 1, 3) for number, id_ in enumerate(ids)})
    versions: dict[str, list[int]] = {}
    for event in tails:
        versions.setdefault(event.aggregate_id, []).append(event.version)
    assert versions == {id_: [2] if number % 2 else [1, 2] for number, id_ in enumerate(ids)}
    with store.begin_append() as transaction:
        assert transaction.read_tails({"id-0": range(1, 3)}) == store.read_aggregate("id-0", 1, 10)
        assert transaction.read_tails({"id-0": range(2, 2), "id-1": range(1, 2)}) == store.read_aggregate("id-1", 1, 1)


def test_outcomes_are_found_by_request_id_and_pruned_by_age(store: EventStore) -> None:
    with store.begin_append() as transaction:
        transaction.append([], [result(f"r-{age}", age) for age in range(10)], transaction.head)
        transaction.commit()
    assert store.prune_results(before=8, limit=5) == 5
    assert store.prune_results(before=8, limit=5) == 3
    assert store.prune_results(before=8, limit=5) == 0
    with store.begin_append() as transaction:
        found = transaction.find_results([f"r-{age}" for age in range(10)])
    assert found == {f"r-{age}": result(f"r-{age}", age) for age in (8, 9)}


def test_an_event_is_known_by_its_position(store: EventStore) -> None:
    written = append(store, [("a", 1), ("a", 2)])
    with store.begin_append() as transaction:
        assert [transaction.event_at(position) for position in (1, 2, 3)] == [*written, None]


def test_the_aggregates_that_others_have_changed_are_known(store: EventStore) -> None:
    append(store, [("a", 1), ("b", 1), ("c", 1), ("b", 2)])
    with store.begin_append() as transaction:
        assert [set(transaction.aggregates_after(position)) for position in (0, 2, 4)] == [
            {"a", "b", "c"},
            {"b", "c"},
            set(),
        ]


def test_a_request_id_has_one_outcome(store: EventStore) -> None:
    with store.begin_append() as transaction:
        transaction.append([], [result("r")], transaction.head)
        transaction.commit()
    with pytest.raises(WriteRefused), store.begin_append() as transaction:  # noqa: PT012 - memory refuses at COMMIT
        transaction.append([], [result("r")], transaction.head)
        transaction.commit()


def test_an_appender_waits_for_the_one_before_it_and_then_sees_its_head(store: EventStore) -> None:
    """Invariant 2: without the lock, the second would take the same position."""
    entered, seen = threading.Event(), list[int]()
    rival = SqlEventStore(url_of(store)) if isinstance(store, SqlEventStore) else store

    def append_too() -> None:
        entered.set()
        with rival.begin_append() as transaction:
            seen.append(transaction.head.position)

    thread = threading.Thread(target=append_too)
    with store.begin_append() as transaction:
        events = events_after(transaction.head, [("a", 1)])
        thread.start()
        assert entered.wait(5)
        thread.join(0.2)
        assert not seen, "the second one must wait for the lock"
        transaction.append(events, [], head_of(events, transaction.head.epoch))
        transaction.commit()
    thread.join(10)
    assert seen == [1]
    rival.close()
