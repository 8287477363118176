"""`orderstream db` on PostgreSQL: schemas, and what the server's role may do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from cli.exit_codes import ExitCode
from cqrs.store.grants import SERVER
from cqrs.store.leases import SqlLeases
from cqrs.store.port import StoredResult
from cqrs.store.schema import metadata
from cqrs.store.sql import SqlEventStore
from tests.integration.cli.installation import Outcome, orderstream
from tests.integration.logs import append, events_after, head_of
from tests.integration.postgresql import PASSWORD, Databases, text_of

ROLE_PASSWORD = "role:pass/word"


class Role:
    """A role of its own for one test."""

    def __init__(self, databases: Databases, owner_url: str) -> None:
        self._databases = databases
        self.owner_url = owner_url
        self.name = f"Server {make_url(owner_url).database}"  # with what must be quoted
        self.url = text_of(make_url(owner_url).set(username=self.name, password=ROLE_PASSWORD))
        self.execute("CREATE ROLE {} LOGIN PASSWORD {}", sql.Identifier(self.name), sql.Literal(ROLE_PASSWORD))

    def execute(self, statement: str, *parts: sql.Composable) -> None:
        """Run a statement as superuser, in the write DB."""
        self._databases.execute(sql.SQL(statement).format(*parts), make_url(self.owner_url).database)

    def connect(self) -> psycopg.Connection:
        """A session of the role."""
        url = make_url(self.url)
        return psycopg.connect(
            host=url.host, port=url.port, dbname=url.database, user=url.username, password=url.password
        )

    def drop(self) -> None:
        self.execute("DROP OWNED BY {0}; DROP ROLE {0}", sql.Identifier(self.name))

    def grant(self, *arguments: str) -> Outcome:
        done = orderstream("db", "grant", "--role", self.name, "--write-db-url", self.owner_url, *arguments)
        assert PASSWORD not in done.stdout + done.stderr
        return done


@pytest.fixture
def role(postgresql: Databases, postgresql_write_db: str) -> Iterator[Role]:
    made = Role(postgresql, postgresql_write_db)
    yield made
    made.drop()


def test_every_table_of_the_write_db_has_its_rights() -> None:
    assert set(SERVER) == set(metadata.tables)


def test_as_the_granted_role_the_event_store_works(role: Role) -> None:
    assert role.grant().returncode == ExitCode.OK
    with closing(SqlEventStore(role.url, readers=2)) as store:
        append(store, [("a", 1), ("b", 1)])
        with store.begin_append() as transaction:
            new = events_after(transaction.head, [("a", 2)])
            results = [StoredResult("request", b"f" * 32, b"answer", 1)]
            transaction.append(new, results, head_of(new, transaction.head.epoch))
            transaction.commit()
        with store.begin_append() as transaction:
            assert transaction.find_results(["request"])["request"].response == b"answer"
        assert store.prune_results(2, 10) == 1
        assert [event.position for event in store.read_log(1, 10)] == [1, 2, 3]
        assert store.read_figures().database_bytes > 0
        assert len(store.read_epochs()) == 1
        assert store.drop_snapshots(None, 10) == 0
    with closing(SqlLeases(role.url, "ada")) as leases:
        assert leases.hold("relay", 5)
        assert leases.hold("relay", 5)
        leases.release("relay")
    assert orderstream("log", "verify", "--write-db-url", role.url).returncode == ExitCode.OK


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = 'y'",
        "UPDATE events SET actor = 'eve' WHERE position = 1",
        "DELETE FROM events",
        "TRUNCATE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TABLE events",
        "DROP TRIGGER events_append_only ON events",
        "UPDATE log_head SET epoch = 'other'",
        "DELETE FROM log_head",
        "INSERT INTO log_epochs VALUES ('e', 0, 1)",
        "UPDATE command_results SET response = ''",
        "SET session_replication_role = replica",
    ],
)
def test_the_granted_role_cannot_change_what_was_written(role: Role, statement: str) -> None:
    assert role.grant().returncode == ExitCode.OK
    with role.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_a_reading_role_verifies_and_exports_and_cannot_write(role: Role) -> None:
    with closing(SqlEventStore(role.owner_url)) as store:
        append(store, [("a", 1), ("b", 1)])
    done = role.grant("--read-only", "-o", "json")
    assert {row["rights"] for row in json.loads(done.stdout)} == {"SELECT"}
    assert orderstream("log", "verify", "--write-db-url", role.url).returncode == ExitCode.OK
    assert len(orderstream("log", "export", "--write-db-url", role.url).stdout.splitlines()) == 2
    for statement in ("INSERT INTO events SELECT * FROM events", "SELECT * FROM log_head FOR UPDATE"):
        with role.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_a_grant_takes_away_what_was_too_much(role: Role) -> None:
    role.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}", sql.Identifier(role.name))
    assert role.grant().returncode == ExitCode.OK
    with role.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM events")
    assert role.grant("--read-only").returncode == ExitCode.OK
    with role.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM snapshots")
    with role.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE log_head SET position = 1")


def test_rights_that_come_by_other_ways_are_refused_and_named(role: Role) -> None:
    role.execute("GRANT DELETE ON events TO PUBLIC")
    done = role.grant()
    assert done.returncode == ExitCode.CONFIG
    assert "would still have DELETE on events, by a grant to PUBLIC or to a role that it is in" in done.stderr
    role.execute("REVOKE DELETE ON events FROM PUBLIC")
    role.execute("ALTER TABLE events OWNER TO {}", sql.Identifier(role.name))
    done = role.grant()
    assert done.returncode == ExitCode.CONFIG
    assert "owns events, and could take back whatever it is denied" in done.stderr
    role.execute("ALTER TABLE events OWNER TO postgres")
    with role.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM events")


def test_a_role_that_does_not_exist_or_is_a_superuser_is_refused(role: Role) -> None:
    for name, said in (("nobody there", "there is no role nobody there"), ("postgres", "is a superuser")):
        done = orderstream("db", "grant", "--role", name, "--write-db-url", role.owner_url)
        assert done.returncode == ExitCode.CONFIG
        assert said in done.stderr


def test_who_does_not_own_the_tables_is_told_to_let_the_owner_do_it(role: Role) -> None:
    assert role.grant().returncode == ExitCode.OK
    done = orderstream("db", "grant", "--role", role.name, "--write-db-url", role.url)
    assert done.returncode == ExitCode.CONFIG
    assert "only postgres, who owns events, can give rights on it" in done.stderr


def test_the_granted_role_cannot_begin_an_epoch_and_is_told_whose_work_that_is(role: Role, tmp_path: object) -> None:
    assert role.grant().returncode == ExitCode.OK
    done = orderstream(
        "log", "fork", "--yes", "--force", "--write-db-url", role.url, "--nats-url", "nats://127.0.0.1:1",
        "--read-db-url", f"sqlite:///{tmp_path}/read.db",
    )  # fmt: skip
    assert done.returncode == ExitCode.CONFIG
    assert "permission denied" in done.stderr
    assert "as the owner of the tables" in done.stderr
    assert ROLE_PASSWORD not in done.stderr


def test_on_sqlite_there_are_no_roles(tmp_path: object) -> None:
    done = orderstream("db", "grant", "--role", "x", "--write-db-url", f"sqlite:///{tmp_path}/write.db")
    assert done.returncode == ExitCode.CONFIG
    assert "has no roles" in done.stderr


def test_both_databases_are_made_and_checked_on_postgresql(postgresql: Databases) -> None:
    write, read = postgresql.empty(), postgresql.empty()
    urls = ("--write-db-url", text_of(write), "--read-db-url", text_of(read))
    missing = orderstream("db", "check", *urls, "-o", "json")
    assert missing.returncode == ExitCode.CONFIG
    assert all("run `orderstream db upgrade`" in row["problem"] for row in json.loads(missing.stdout))
    done = orderstream("db", "upgrade", *urls)
    assert done.returncode == ExitCode.OK, done.stderr
    again = orderstream("db", "upgrade", *urls, "-o", "json")
    assert all(row["before"] == row["after"] for row in json.loads(again.stdout))
    assert orderstream("db", "check", *urls).returncode == ExitCode.OK
    for outcome in (missing, done, again):
        assert PASSWORD not in outcome.stdout + outcome.stderr
    postgresql.drop(write)
    postgresql.drop(read)


@pytest.mark.parametrize("what", ["upgrade", "check"])
def test_a_database_that_cannot_be_reached_is_told_in_a_line_without_its_password(
    postgresql: Databases, tmp_path: object, what: str
) -> None:
    url = text_of(postgresql.empty().set(password="wrong/secret"))
    done = orderstream("db", what, "--write-db-url", url, "--read-db-url", f"sqlite:///{tmp_path}/read.db")
    assert done.returncode == ExitCode.CONFIG
    told = " ".join((done.stdout + done.stderr).split())
    assert "password authentication failed" in told
    assert "secret" not in told
