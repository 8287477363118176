"""PostgreSQL, through psycopg 3: what each session is set to, and what its errors mean.

What operators need to know of it stands in docs/postgresql.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import QueuePool

from cqrs.database.backend import EngineOptions
from cqrs.database.bounded import BoundedConnection, answered_at_leisure
from cqrs.errors import ConfigurationError

CONNECT_SECONDS = 5
"""How long to wait for a connection, per host of the URL."""

IDLE_IN_TRANSACTION_SECONDS = 5
"""A transaction whose server says nothing for so long is rolled back: a frozen one must not keep the log's head.
Between two statements of ours lies the deciding of one batch, which takes milliseconds."""

SNAPSHOT_IDLE_SECONDS = 600
"""The same for read-only transactions, which hold up nobody and whose rows may take long to work through."""

STATEMENT_SECONDS = 30
"""The longest statement. Longer than any wait for a lock, which fails with a message of its own."""

DEAD_PEER_SECONDS = 11
"""A server that can no longer be reached is noticed after so long: 5 s of silence and 3 questions, 2 s apart."""

_MIGRATION_LOCK = 0x6F_72_64_65_72
"""Key of the advisory lock that migrations hold: "order". Never change it: two releases must exclude each other."""

_CONNECT = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": DEAD_PEER_SECONDS * 1000,
    "client_encoding": "utf8",
}
"""Arguments of each connection, see "Parameter Key Words" of libpq. What a URL gives (`?connect_timeout=2`) wins."""

_HINTS = (
    ("could not translate host name", "check the host in the URL"),
    ("failed to resolve host", "check the host in the URL"),
    ("Connection refused", "check host and port in the URL, and that PostgreSQL runs there"),
    ("timeout expired", f"nothing answered within {CONNECT_SECONDS} s: check host, port and firewalls"),
    ("timed out", "nothing answered: check host, port and firewalls"),
    ("password authentication failed", "check user and password in the URL (or PGPASSFILE)"),
    ("no password supplied", "give the password in the URL, or in a file that PGPASSFILE names"),
    ("no pg_hba.conf entry", "let this user in from this host in pg_hba.conf; `?sslmode=require` asks for TLS"),
    ("session is read-only", "this is a standby: name the primary, or all hosts as in docs/postgresql.md"),
    ("server is in hot standby mode", "this is a standby: name the primary, or all hosts as in docs/postgresql.md"),
)
"""By a part of the message, as errors of connecting carry no code. (A server whose messages are not in English loses
only the hint.)"""

_MISSING = {
    "role": "create it, or check the user in the URL",
    "database": "create it (`createdb`), then run `orderstream db upgrade`",
}

_HINTS_BY_CODE = {
    "42501": "let the owner of the tables run `orderstream db grant --role NAME`, and migrations as the owner",
    "42P01": "run `orderstream db upgrade`",
    "55P03": "another transaction holds it, try again",
    "25006": "this is a standby: name the primary, or all hosts as in docs/postgresql.md",
    "53300": "raise max_connections, or run fewer servers",
}
"""By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


class Postgresql:
    """A server, reached over the network by any number of processes."""

    is_file = False

    def open(self, url: sa.URL, options: EngineOptions) -> sa.Engine:
        """See Backend. "write" transactions are READ COMMITTED, "read" ones REPEATABLE READ and READ ONLY."""
        if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
            raise ConfigurationError(f"{url.drivername}: give the URL as postgresql://USER:PASSWORD@HOST/DATABASE")
        writes = options.access == "write"
        wanted = _CONNECT | {
            "application_name": options.application_name,
            # With several hosts in the URL: the primary, whichever it is just now.
            "target_session_attrs": "read-write" if writes else "primary",
        }
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            poolclass=QueuePool,
            pool_size=options.connections,
            max_overflow=0,
            connect_args={key: value for key, value in wanted.items() if key not in url.query},
            use_native_hstore=False,
            isolation_level=None if options.snapshot or writes else "AUTOCOMMIT",
        )
        session = _session_settings(options)

        @sa.event.listens_for(engine, "do_connect")
        def _connect(_dialect: object, _record: object, arguments: Any, parameters: Any) -> Any:
            return BoundedConnection.connect(*arguments, **parameters)

        @sa.event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: object) -> None:
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                connection.close()
                raise ConfigurationError(f"the database {url.database} has the encoding {encoding}: make it in UTF8")
            autocommit, connection.autocommit = connection.autocommit, True
            connection.execute(session)
            connection.autocommit = autocommit

        @sa.event.listens_for(engine, "checkout")
        def _check(connection: BoundedConnection, _record: object, _proxy: object) -> None:
            if connection.has_been_cut():
                raise DisconnectionError("the server has closed it")  # the pool makes another

        return engine

    @contextmanager
    def migrating(self, connection: sa.Connection) -> Iterator[None]:
        """See Backend. Waits for a migration that runs already, however long that takes."""
        with answered_at_leisure(connection):
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            yield

    def version_table(self, database: str) -> str:
        """See Backend. Each has its own, so that write DB and read DB may be one database."""
        return f"alembic_version_{database.lower().replace(' ', '_')}"

    def explain(self, error: DBAPIError) -> str:
        """See Backend."""
        text = " ".join(str(error.orig).split())
        hint = _HINTS_BY_CODE.get(getattr(error.orig, "sqlstate", None) or "") or _hint(text)
        return f"{text}: {hint}" if hint else text


def _session_settings(options: EngineOptions) -> str:
    """The statement that sets up a new session."""
    writes = options.access == "write"
    settings = {
        "statement_timeout": f"{STATEMENT_SECONDS}s",
        "lock_timeout": f"{options.busy_timeout_seconds:g}s",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS if writes else SNAPSHOT_IDLE_SECONDS}s",
        "default_transaction_isolation": "read committed" if writes else "repeatable read",
        "default_transaction_read_only": "off" if writes else "on",
        # Compiling a plan takes longer than any statement of ours.
        "jit": "off",
    }
    calls = [f"set_config('{name}', '{value}', false)" for name, value in settings.items()]
    if writes:
        # Never weaker than what "durable" promises; an operator's remote_apply is stronger and stays.
        wanted = "'on'" if options.durable else "current_setting('synchronous_commit')"
        calls.append(
            "set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
            f"WHEN 'remote_apply' THEN 'remote_apply' ELSE {wanted} END, false)"
        )
    return f"SELECT {', '.join(calls)}"


def _hint(text: str) -> str:
    for what, hint in _MISSING.items():
        if f'{what} "' in text and "does not exist" in text:
            return hint
    return next((hint for part, hint in _HINTS if part in text), "")
