"""PostgreSQL as such: sessions, migrations, what errors tell, and what the write DB holds up there."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors, sql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from cqrs.database.engine import backend_of, open_engine
from cqrs.database.migrations import check_schema, upgrade_schema
from cqrs.errors import ConfigurationError, SchemaMismatch
from cqrs.store.port import StoredResult, WriteRefused
from cqrs.store.schema import WRITE_SCHEMA, metadata
from cqrs.store.sql import SqlEventStore
from tests.integration.logs import append, assert_one_gapless_chain, events_after, head_of
from tests.integration.postgresql import PASSWORD, Databases, text_of


@pytest.fixture
def url(postgresql_write_db: str) -> URL:
    return make_url(postgresql_write_db)


@pytest.fixture
def empty(postgresql: Databases) -> Iterator[URL]:
    url = postgresql.empty()
    yield url
    postgresql.drop(url)


@pytest.fixture
def store(url: URL) -> Iterator[SqlEventStore]:
    opened = SqlEventStore(text_of(url))
    yield opened
    opened.close()


def shown_by(url: URL, access: str, durable: bool, *names: str) -> list[str]:
    engine = open_engine(text_of(url), access="write" if access == "write" else "read", durable=durable)
    with engine.connect() as connection:
        found = [str(connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in names]
    engine.dispose()
    return found


# Sessions.


def test_a_writing_session_is_durable_and_does_not_keep_a_lock_when_its_process_freezes(url: URL) -> None:
    names = ("synchronous_commit", "transaction_isolation", "idle_in_transaction_session_timeout", "lock_timeout")
    assert shown_by(url, "write", True, *names) == ["on", "read committed", "5s", "10s"]


def test_durability_that_an_operator_has_switched_off_is_switched_on_and_stronger_stays(
    postgresql: Databases, url: URL
) -> None:
    for set_to, expected in (("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")):
        postgresql.execute(
            sql.SQL("ALTER DATABASE {} SET synchronous_commit = {}").format(
                sql.Identifier(str(url.database)), sql.Literal(set_to)
            )
        )
        assert shown_by(url, "write", True, "synchronous_commit") == [expected]


def test_a_reading_session_sees_one_moment_and_cannot_write(url: URL) -> None:
    names = ("transaction_isolation", "transaction_read_only")
    assert shown_by(url, "read", False, *names) == ["repeatable read", "on"]
    engine = open_engine(text_of(url), access="read")
    with engine.connect() as connection, pytest.raises(DBAPIError, match="read-only"):
        connection.exec_driver_sql("DELETE FROM leases")
    engine.dispose()


def test_of_several_hosts_the_one_that_takes_writes_is_used(url: URL) -> None:
    both = f"postgresql://{url.username}:{PASSWORD.replace('/', '%2F').replace('@', '%40').replace(':', '%3A')}@/"
    found = open_engine(f"{both}{url.database}?host=127.0.0.1:1&host=127.0.0.1:{url.port}", access="write")
    with found.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    found.dispose()


def test_a_standby_is_refused_and_the_message_says_what_to_name(postgresql: Databases, url: URL) -> None:
    name = sql.Identifier(str(url.database))
    # What a standby shows to clients that ask for a session that can write.
    postgresql.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    engine = open_engine(text_of(url), access="write")
    with pytest.raises(DBAPIError) as refused:
        engine.connect()
    engine.dispose()
    assert "name the primary, or all hosts" in backend_of(url).explain(refused.value)


def test_a_database_in_another_encoding_is_refused(postgresql: Databases, url: URL) -> None:
    name = f"{url.database}_latin"
    postgresql.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1'").format(sql.Identifier(name)))
    engine = open_engine(text_of(url.set(database=name)), access="write")
    with pytest.raises(ConfigurationError, match="encoding LATIN1: make it in UTF8"):
        engine.connect()
    engine.dispose()
    postgresql.drop(url.set(database=name))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"port": 1}, "check host and port in the URL"),
        ({"password": "wrong"}, "check user and password"),
        ({"database": "missing"}, "createdb"),
        ({"username": "missing", "password": "x"}, "check user and password"),
        ({"host": "no.such.host.invalid"}, "check the host in the URL"),
    ],
)
def test_a_database_that_cannot_be_had_is_told_with_a_hint_and_without_a_password(
    url: URL, change: dict[str, object], hint: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SqlEventStore(text_of(url.set(**change)))  # type: ignore[arg-type] # of the right types, by name
    assert hint in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_connections_that_the_server_has_closed_are_replaced_before_anybody_gets_them(
    postgresql: Databases, store: SqlEventStore, url: URL
) -> None:
    written = append(store, [("a", 1)])
    for _ in range(3):
        assert store.read_log(1, 10) == written
        postgresql.disconnect(url)
        assert store.read_log(1, 10) == written


# Migrations.

_UPGRADE = """
import sys
from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.store.schema import WRITE_SCHEMA
engine = open_engine(sys.argv[1], access="write")
print(*upgrade_schema(engine, WRITE_SCHEMA))
"""


def test_migrations_that_run_at_once_exclude_each_other(empty: URL) -> None:
    command = [sys.executable, "-c", _UPGRADE, text_of(empty)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = sorted(process.communicate(timeout=60)[0].strip() for process in running)
    assert all(process.returncode == 0 for process in running)
    newest = told[-1].split()[1]
    assert told == sorted([f"None {newest}", *[f"{newest} {newest}"] * 3])
    store = SqlEventStore(text_of(empty))
    assert len(store.read_epochs()) == 1
    store.close()


def test_a_migration_waits_for_locks_for_as_long_as_it_takes_and_sessions_are_as_before_after_it(
    empty: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cqrs.database.bounded.BoundedConnection.answer_seconds", 1.0)
    engine = open_engine(text_of(empty), access="write", busy_timeout_seconds=0.1)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(text_of(empty)) as blocking:
        blocking.execute("SELECT pg_advisory_xact_lock(%s)", (0x6F_72_64_65_72,))
        migrating = pool.submit(upgrade_schema, engine, WRITE_SCHEMA)
        with pytest.raises(TimeoutError):
            migrating.result(2)
        blocking.rollback()
        assert migrating.result(30)[0] is None
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "100ms"
        with pytest.raises(DBAPIError, match="has not answered for 1 s"):
            connection.exec_driver_sql("SELECT pg_sleep(5)")
    engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_declares(url: URL) -> None:
    engine = open_engine(text_of(url), access="read")
    inspector = sa.inspect(engine)
    for table in metadata.sorted_tables:
        assert [column["name"] for column in inspector.get_columns(table.name)] == [c.name for c in table.columns]
        assert {index["name"] for index in inspector.get_indexes(table.name)} >= {i.name for i in table.indexes}
    assert check_schema(engine, WRITE_SCHEMA)
    engine.dispose()


def test_a_database_without_a_schema_is_refused_with_the_command_that_mends_it(empty: URL) -> None:
    with pytest.raises(SchemaMismatch, match="orderstream db upgrade"):
        SqlEventStore(text_of(empty))


# The log.


@pytest.mark.parametrize("statement", ["UPDATE events SET actor = 'mallory'", "DELETE FROM events", "TRUNCATE events"])
def test_events_can_be_neither_changed_nor_deleted_not_even_by_a_replica_session(
    store: SqlEventStore, url: URL, statement: str
) -> None:
    written = append(store, [("a", 1)])
    with psycopg.connect(text_of(url), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        with pytest.raises(errors.RestrictViolation, match="append-only"):
            connection.execute(statement.encode())
    assert store.read_log(1, 10) == written


def test_ids_sort_and_compare_by_their_bytes_whatever_the_locale(store: SqlEventStore, url: URL) -> None:
    """An index in an order that an update of the operating system changes would be corrupt."""
    append(store, [(name, 1) for name in ("b", "A", "a", "B", "ä")])
    with psycopg.connect(text_of(url)) as connection:
        found = connection.execute("SELECT aggregate_id FROM events ORDER BY aggregate_id").fetchall()
        assert [row[0] for row in found] == ["A", "B", "a", "b", "ä"]
        by_locale = connection.execute(
            "SELECT indexrelid::regclass FROM pg_index, unnest(indcollation) AS sorted_by "
            "WHERE sorted_by = 'pg_catalog.\"default\"'::regcollation "
            "AND indrelid IN ('events'::regclass, 'log_epochs'::regclass, 'command_results'::regclass, "
            "'leases'::regclass, 'snapshots'::regclass)"
        ).fetchall()
    assert by_locale == []


def test_text_that_postgresql_cannot_hold_is_refused_and_the_store_works_on(store: SqlEventStore) -> None:
    with pytest.raises(WriteRefused):
        append(store, [("nul\0character", 1)])
    with pytest.raises(WriteRefused):
        store.read_outlook(["nul\0character"], ())
    append(store, [("a", 1)], data=bytes(range(256)))
    assert store.read_log(1, 10)[0].data == bytes(range(256))


def test_a_batch_far_larger_than_any_of_the_committers_is_written_and_read_in_bounded_memory(
    store: SqlEventStore,
) -> None:
    with store.begin_append() as transaction:
        events = events_after(transaction.head, [(f"a-{n}", 1) for n in range(20_000)], b"x" * 2000)
        results = [StoredResult(f"r-{n}", b"f" * 32, b"y" * 500, 1) for n in range(20_000)]
        transaction.append(events, results, head_of(events, transaction.head.epoch))
        transaction.commit()
    tracemalloc.start()
    try:
        position, found = 1, 0
        while page := store.read_log(position, 1000, max_bytes=200_000):
            position, found = page[-1].position + 1, found + len(page)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 20_000
    assert peak < 4_000_000, "a page is bounded where it is made, not where it is read"
    with store.begin_append() as transaction:
        assert len(transaction.find_results([f"r-{n}" for n in range(20_000)])) == 20_000
        assert len(set(transaction.aggregates_after(0))) == 20_000
    assert len(store.read_outlook([f"a-{n}" for n in range(20_000)], ())) == 20_000


def test_statements_are_prepared_and_survive_a_change_of_the_schema_beside_them(store: SqlEventStore, url: URL) -> None:
    """psycopg prepares what it has sent five times; a later migration must not break what runs."""
    for version in range(1, 12):
        append(store, [("a", version)])
        assert len(store.read_log(1, 100)) == version
    with psycopg.connect(text_of(url), autocommit=True) as connection:
        connection.execute("ALTER TABLE events ADD COLUMN novelty text")
        connection.execute("ANALYZE events")
    for version in range(12, 20):
        append(store, [("a", version)])
        assert len(store.read_log(1, 100)) == version
    assert_one_gapless_chain(store.read_log(1, 100))
