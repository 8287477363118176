"""What every event store guarantees of snapshots: the real ones and the one in memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cqrs.records import EventRecord
from cqrs.snapshots.snapshot import Bound, Candidate, Snapshot
from cqrs.store.port import EventStore
from cqrs.store.sql import SqlEventStore
from tests.integration.store.snapshot_rows import change, put
from tests.orders_history import History, item
from tests.snapshots_support import DAMAGES, RULES, Loading, append_events, fold_all, of, same, sealed, snapshot_at

OURS = RULES["order"].fingerprint
THEIRS = b"t" * 32
ALL = [rule.fingerprint for rule in RULES.values()]


def history(orders: int = 2, changes: int = 19) -> History:
    """Orders `o-0`, `o-1`, … with so many events each and one more, in turn."""
    made = History()
    made.register("c-1")
    for order in range(orders):
        made.create(f"o-{order}", "c-1")
    for number in range(changes):
        for order in range(orders):
            made.add_item(f"o-{order}", item(f"s-{number}", 1, "1"), str(11 + number))
    return made


def candidate(events: Sequence[EventRecord], snapshot: Snapshot) -> Candidate:
    event = of(events, snapshot.aggregate_id)[snapshot.version - 1]
    return Candidate(snapshot, event.position, event.hash)


def kept(store: EventStore, aggregate_id: str, fingerprint: bytes = OURS) -> list[int]:
    """The versions of an aggregate's snapshots, newest first."""
    found, bound = list[int](), Bound()
    while (newest := store.read_snapshot(aggregate_id, bound, [fingerprint])) is not None:
        found.append(newest.snapshot.version)
        bound = Bound(version=found[-1] - 1)
    return found


def test_the_newest_snapshot_is_found_with_its_event_and_the_newest_version(store: EventStore) -> None:
    events = history().events
    append_events(store, events)
    written = [snapshot_at(events, "o-0", 4), snapshot_at(events, "o-0", 9), snapshot_at(events, "c-1", 1)]
    store.write_snapshots(written, keep=5)
    outlook = store.read_outlook(["o-0", "o-1", "c-1", "nobody"], ALL)
    assert {id_: (found.newest_version, found.candidate) for id_, found in outlook.items()} == {
        "o-0": (20, candidate(events, written[1])),
        "o-1": (20, None),
        "c-1": (1, candidate(events, written[2])),
    }
    with store.begin_append() as transaction:
        assert transaction.read_outlook(["o-0"], ALL) == {"o-0": outlook["o-0"]}
        assert transaction.read_snapshot("o-0", Bound(), ALL) == outlook["o-0"].candidate
    assert store.read_outlook(["o-0"], [])["o-0"].candidate is None
    assert store.count_snapshots() == 3


def test_the_newest_snapshot_up_to_a_point_is_found_by_version_position_and_time(store: EventStore) -> None:
    events = history().events
    append_events(store, events)
    written = {version: snapshot_at(events, "o-1", version) for version in (3, 8, 15)}
    store.write_snapshots(list(written.values()), keep=5)
    for event in of(events, "o-1"):
        newest = max((version for version in written if version <= event.version), default=None)
        expected = None if newest is None else candidate(events, written[newest])
        for bound in (
            Bound(version=event.version),
            Bound(position=event.position),
            Bound(record_time=event.record_time),
        ):
            assert store.read_snapshot("o-1", bound, ALL) == expected


def test_the_outlook_of_very_many_aggregates_is_read_in_one_go(store: EventStore) -> None:
    events = history(orders=1200, changes=1).events
    append_events(store, events)
    wanted = [f"o-{number}" for number in range(1200)]
    store.write_snapshots([snapshot_at(events, id_, 1) for id_ in wanted[::100]], keep=1)
    outlook = store.read_outlook(wanted, ALL)
    assert {id_ for id_, found in outlook.items() if found.newest_version == 2} == set(wanted)
    assert {id_ for id_, found in outlook.items() if found.candidate is not None} == set(wanted[::100])


def test_a_snapshot_takes_the_place_of_one_of_its_version(store: EventStore) -> None:
    events = history().events
    append_events(store, events)
    right = snapshot_at(events, "o-0", 9)
    store.write_snapshots([DAMAGES["checksum"](right)], keep=5)
    store.write_snapshots([right], keep=5)
    assert store.read_snapshot("o-0", Bound(), ALL) == candidate(events, right)
    assert store.count_snapshots() == 1


def test_only_so_many_snapshots_of_an_aggregate_are_kept_spread_over_its_life(store: EventStore) -> None:
    events = history().events
    append_events(store, events)
    store.write_snapshots([snapshot_at(events, "o-1", 1)], keep=4)
    for version in range(1, 21):
        store.write_snapshots([snapshot_at(events, "o-0", version)], keep=4)
    versions = kept(store, "o-0")
    assert versions[0] == 20
    assert len(versions) == 4
    assert max(a - b for a, b in zip(versions, [*versions[1:], 0], strict=True)) <= 10
    assert kept(store, "o-1") == [1]


def test_releases_that_run_side_by_side_leave_each_others_newest_snapshot_alone(store: EventStore) -> None:
    events = history().events
    append_events(store, events)
    for version in range(1, 21):
        mine, theirs = (
            snapshot_at(events, "o-0", version),
            sealed(snapshot_at(events, "o-0", version), fingerprint=THEIRS),
        )
        store.write_snapshots([mine if version % 2 else theirs], keep=4)
        store.write_snapshots([theirs if version % 2 else mine], keep=4)
    assert (kept(store, "o-0")[0], kept(store, "o-0", THEIRS)) == (20, [20])
    assert store.count_snapshots() <= 5


def test_two_releases_do_not_take_snapshots_anew_on_each_load(store: EventStore) -> None:
    """Each finds its own newest, so that neither has anything to offer."""
    events = history().events
    append_events(store, events)
    mine = snapshot_at(events, "o-0", 20)
    store.write_snapshots([mine], keep=4)
    store.write_snapshots([sealed(mine, fingerprint=THEIRS)], keep=4)
    loading = Loading()
    for _ in range(3):
        assert same(loading.loader.load(store, ["o-0"])["o-0"], fold_all(events, "o-0"))
    assert (loading.count("used"), loading.count("folded"), loading.offered) == (3, 0, [])


def test_snapshots_of_a_lost_branch_and_ahead_of_the_log_go_with_the_next_one(store: EventStore) -> None:
    events = history().events
    append_events(store, events)
    for version, damage in ((6, "branch"), (7, "ahead")):
        put(store, DAMAGES[damage](snapshot_at(events, "o-0", version)))
    store.write_snapshots([snapshot_at(events, "o-0", 3)], keep=9)
    assert kept(store, "o-0") == [3]


def test_snapshots_are_dropped_by_type_and_in_parts(store: EventStore) -> None:
    events = history().events
    append_events(store, events)
    store.write_snapshots([snapshot_at(events, "o-0", version) for version in (3, 5, 7)], keep=9)
    store.write_snapshots([snapshot_at(events, "c-1", 1)], keep=9)
    assert store.drop_snapshots("order", limit=2) == 2
    assert store.drop_snapshots("order", limit=2) == 1
    assert store.drop_snapshots("order", limit=2) == 0
    assert store.count_snapshots() == 1
    assert store.drop_snapshots(None, limit=2) == 1


def test_a_snapshot_of_no_use_means_replay_and_never_an_error(store: EventStore) -> None:
    damaged = {f"o-{number}": damage for number, damage in enumerate(DAMAGES.values())}
    events = history(orders=len(damaged) + 1).events
    append_events(store, events)
    for id_, damage in damaged.items():
        put(store, damage(snapshot_at(events, id_, 12)))
    sound = f"o-{len(damaged)}"
    put(store, snapshot_at(events, sound, 12))
    loading = Loading()
    loaded = loading.loader.load(store, [*damaged, sound])
    assert all(same(loaded[id_], fold_all(events, id_)) for id_ in (*damaged, sound))
    assert (loading.count("used"), loading.count("folded")) == (1, 20 * len(damaged) + 8)
    with store.begin_append() as transaction:
        loaded = loading.loader.load(transaction, [*damaged, sound])
    assert all(same(loaded[id_], fold_all(events, id_)) for id_ in (*damaged, sound))


def test_no_column_of_a_snapshot_can_be_changed_so_that_a_load_fails_or_lies(store: EventStore) -> None:
    changes: list[dict[str, Any]] = [
        {"state": b"\0\1\2"},
        {"checksum": b""},
        {"fingerprint": b""},
        {"hash": b""},
        {"aggregate_type": ""},
        {"position": 0},
        {"record_time": 2**62},
        {"version": 99},
    ]
    events = history(orders=len(changes)).events
    append_events(store, events)
    for number, columns in enumerate(changes):
        store.write_snapshots([snapshot_at(events, f"o-{number}", 12)], keep=5)
        change(store, f"o-{number}", **columns)
    loading = Loading()
    for number in range(len(changes)):
        assert same(loading.loader.load(store, [f"o-{number}"])[f"o-{number}"], fold_all(events, f"o-{number}"))
    assert loading.count("used") == 0


@pytest.mark.parametrize("damage", ["checksum", "branch", "ahead", "undecodable"])
def test_a_load_that_met_a_snapshot_of_no_use_offers_one_that_mends_it(store: EventStore, damage: str) -> None:
    events = history().events
    append_events(store, events)
    right = snapshot_at(events, "o-0", 20)
    if damage == "ahead":
        store.write_snapshots([right], keep=5)
    put(store, DAMAGES[damage](right))
    loading = Loading()
    loading.loader.load(store, ["o-0"])
    (offered,) = loading.offered
    assert (offered.aggregate_id, offered.version) == ("o-0", 20)
    store.write_snapshots([right], keep=5)
    again = Loading()
    again.loader.load(store, ["o-0"])
    assert (again.count("used"), again.count("folded"), again.offered) == (1, 0, [])


def test_what_took_many_events_to_load_is_offered_and_what_took_few_is_not(store: EventStore) -> None:
    events = history(changes=4).events
    append_events(store, events)
    loading = Loading()
    loading.loader.load(store, ["o-0"])
    assert loading.offered == []  # 5 events, and a snapshot is wanted every 5
    more = History()
    more.events, more._versions = list(events), {"o-0": 5, "o-1": 5}
    added = [more.add_item("o-0", item("t", 1, "1"), "99")]
    append_events(store, added)
    loading.loader.load(store, ["o-0"])
    assert [(capture.aggregate_id, capture.version) for capture in loading.offered] == [("o-0", 6)]


def test_an_aggregate_of_thousands_of_events_and_many_small_ones_are_loaded_together(store: EventStore) -> None:
    made = history(orders=300, changes=4)
    for number in range(2500):
        made.add_item("o-0", item("s", 1, "1"), str(number + 20))
    append_events(store, made.events)
    wanted = [f"o-{number}" for number in range(300)]
    loaded = Loading().loader.load(store, [*wanted, "nobody"])
    assert loaded["nobody"] is None
    assert all(same(loaded[id_], fold_all(made.events, id_)) for id_ in wanted)


def test_servers_that_write_the_same_snapshots_at_the_same_time_neither_fail_nor_wait_for_ever(
    postgresql_write_db: str,
) -> None:
    events = history(orders=6).events
    stores = [SqlEventStore(postgresql_write_db) for _ in range(3)]
    append_events(stores[0], events)
    by_version = [[snapshot_at(events, f"o-{order}", version) for order in range(6)] for version in range(1, 21)]

    def write(store: SqlEventStore, seed: int) -> None:
        chance = random.Random(seed)
        for written in by_version:
            store.write_snapshots(chance.sample(written, k=5), keep=3)

    with ThreadPoolExecutor(len(stores)) as threads:
        for done in [threads.submit(write, store, seed) for seed, store in enumerate(stores)]:
            done.result(timeout=60)
    for order in range(6):
        versions = kept(stores[0], f"o-{order}")
        assert versions[0] >= 19
        assert len(versions) <= 3 + len(stores)
    for store in stores:
        store.close()
