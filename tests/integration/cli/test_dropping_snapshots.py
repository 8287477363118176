"""`orderstream snapshots drop`, on both databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.commands import snapshots as module
from cli.exit_codes import ExitCode
from cqrs.store.sql import SqlEventStore
from tests.integration.logs import new_write_db
from tests.orders_history import History
from tests.snapshots_support import append_events, snapshot_at


@pytest.fixture(params=["sqlite", "postgresql"])
def write_db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_write_db(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgresql_write_db"))


def test_snapshots_are_dropped_by_type_or_all_beside_an_open_store(
    write_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 2)
    history = History()
    history.register("c-1")
    for number in range(5):
        history.create(f"o-{number}", "c-1")
    store = SqlEventStore(write_db)
    append_events(store, history.events)
    store.write_snapshots([snapshot_at(history.events, f"o-{number}", 1) for number in range(5)], keep=1)
    store.write_snapshots([snapshot_at(history.events, "c-1", 1)], keep=1)

    def drop(*options: str) -> object:
        result = CliRunner().invoke(app, ["snapshots", "drop", "--write-db-url", write_db, "-o", "json", *options])
        assert result.exit_code == ExitCode.OK, result.output
        return json.loads(result.stdout)

    assert drop("--type", "parcel") == {"dropped": 0}
    assert drop("--type", "order") == {"dropped": 5}
    assert store.count_snapshots() == 1
    assert drop() == {"dropped": 1}
    assert drop() == {"dropped": 0}
    store.close()


def test_a_write_db_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["snapshots", "drop", "--data", str(tmp_path)])
    assert result.exit_code == ExitCode.NO_INPUT
    assert list(tmp_path.iterdir()) == []
