"""What the write DB adds to the contract of event stores."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.errors import ConfigurationError, LogInUse, SchemaMismatch
from cqrs.records import EventRecord
from cqrs.store.ownership import own_write_db
from cqrs.store.schema import WRITE_SCHEMA, events, metadata
from cqrs.store.sql import SqlEventStore
from tests.integration.logs import append, new_write_db


def open_raw(url: str) -> sqlite3.Connection:
    return sqlite3.connect(url.removeprefix("sqlite:///"))


FORGED = (
    "SELECT {position}, 'forged', aggregate_type, aggregate_id, {version}, event_type, record_time, "
    "NULL, NULL, NULL, NULL, NULL, data, hash, NULL FROM events"
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'mallory'",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events " + FORGED.format(position=1, version=2),
        "INSERT OR REPLACE INTO events " + FORGED.format(position=2, version=1),
    ],
)
def test_events_can_be_neither_changed_nor_deleted(tmp_path: Path, statement: str) -> None:
    url = new_write_db(tmp_path)
    store = SqlEventStore(url)
    written = append(store, [("a", 1)])
    raw = open_raw(url)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement)
    raw.close()
    assert store.read_log(1, 10) == written
    store.close()


def test_a_database_without_a_schema_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="orderstream db upgrade"):
        SqlEventStore(f"sqlite:///{tmp_path / 'empty.db'}")


def test_a_schema_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    url = new_write_db(tmp_path)
    raw = open_raw(url)
    raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.commit()
    raw.close()
    with pytest.raises(SchemaMismatch, match="newer release"):
        SqlEventStore(url)
    engine = open_engine(url, access="write")
    with pytest.raises(SchemaMismatch, match="newer release"):
        upgrade_schema(engine, WRITE_SCHEMA)
    engine.dispose()


def test_upgrading_twice_changes_nothing(tmp_path: Path) -> None:
    url = new_write_db(tmp_path)
    store = SqlEventStore(url)
    head = store.read_head()
    store.close()
    engine = open_engine(url, access="write")
    before, after = upgrade_schema(engine, WRITE_SCHEMA)
    assert before == after
    engine.dispose()
    store = SqlEventStore(url)
    assert store.read_head() == head
    store.close()


def test_the_migrations_make_the_tables_that_the_code_declares(tmp_path: Path) -> None:
    url = new_write_db(tmp_path)
    raw = open_raw(url)
    for table in metadata.sorted_tables:
        columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table.name})")]
        assert columns == [column.name for column in table.columns]
    raw.close()


def test_columns_of_events_stand_in_the_order_of_the_record() -> None:
    assert tuple(column.name for column in events.columns) == EventRecord._fields


def test_a_write_db_has_one_owner(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'write.db'}"
    with own_write_db(url), pytest.raises(LogInUse, match="process"), own_write_db(url):
        pass
    with own_write_db(url):
        pass


def test_a_file_that_is_no_database_is_refused_as_a_matter_for_an_operator(tmp_path: Path) -> None:
    (tmp_path / "write.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        SqlEventStore(f"sqlite:///{tmp_path / 'write.db'}")


def test_a_folder_that_cannot_be_made_is_refused_as_a_matter_for_an_operator(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigurationError, match="cannot be made"),
        own_write_db(f"sqlite:///{tmp_path / 'file' / 'write.db'}"),
    ):
        pass


def test_a_link_to_a_write_db_that_is_held_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "write.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "write.db")
    with (
        own_write_db(f"sqlite:///{tmp_path / 'write.db'}"),
        pytest.raises(LogInUse),
        own_write_db(f"sqlite:///{tmp_path / 'link.db'}"),
    ):
        pass


def test_a_commit_is_synced_to_the_disk(tmp_path: Path) -> None:
    store = SqlEventStore(new_write_db(tmp_path))
    append(store, [("a", 1)])
    assert store._writer is not None
    assert store._writer.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
    assert store._writer.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    store.close()
