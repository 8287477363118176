"""SQLite lets a column hold anything. What was put into `snapshots` by hand makes no load fail or lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from cqrs.snapshots.history import PastFold
from cqrs.snapshots.snapshot import Bound
from cqrs.store.sql import SqlEventStore
from tests.integration.logs import new_write_db
from tests.orders_history import History, item
from tests.snapshots_support import Loading, append_events, fold_all, same, snapshot_at


@pytest.mark.parametrize(
    "column", ["version", "position", "hash", "aggregate_type", "record_time", "state", "checksum"]
)
def test_whatever_a_column_holds_the_state_is_right_and_the_next_snapshot_mends_it(tmp_path: Path, column: str) -> None:
    history = History()
    history.register("c-1")
    history.create("o-1", "c-1")
    for number in range(9):
        history.add_item("o-1", item(f"s-{number}", 1, "1"), str(11 + number))
    store = SqlEventStore(new_write_db(tmp_path))
    append_events(store, history.events)
    wanted = fold_all(history.events, "o-1")
    values = ["'text'", "''", "x''", "x'ff00'", "1.5", "-1", "9223372036854775807"]
    if column != "version":  # a key that cannot be read is found by nothing that would mend it
        values.append(f"x'ff' || {column}")
    for value in values:
        store.write_snapshots([snapshot_at(history.events, "o-1", 10)], keep=5)
        with store._side_engine.begin() as connection:
            assert connection.exec_driver_sql(f"UPDATE snapshots SET {column} = {value}").rowcount == 1
        loading = Loading()
        assert same(loading.loader.load(store, ["o-1"])["o-1"], wanted)
        past = PastFold(store, loading.snapshots, "o-1", Bound())
        assert past.step()
        assert past.fold is not None
        assert same(past.fold.result(), wanted)
        assert loading.count("used") == 0, value
    store.write_snapshots([snapshot_at(history.events, "o-1", 10)], keep=5)
    loading = Loading()
    assert same(loading.loader.load(store, ["o-1"])["o-1"], wanted)
    assert (loading.count("used"), store.count_snapshots()) == (1, 1)
    store.close()
