"""A real PostgreSQL for tests: started by them, in a temporary folder, on a free port of the loopback device.

With ORDERSTREAM_TEST_POSTGRESQL_URL, the URL of a superuser, that server is used instead where a test does not stop or
restart its server. Each test has a database of its own, copied from one that has the schema.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from cqrs.database.engine import open_engine
from cqrs.database.migrations import Schema, upgrade_schema
from cqrs.store.schema import WRITE_SCHEMA
from tools.postgresql_server import SUPERUSER, PostgresServer

__all__ = [
    "PASSWORD",
    "SUPERUSER",
    "URL_VARIABLE",
    "Databases",
    "PostgresServer",
    "databases",
    "postgresql_server",
    "text_of",
]

URL_VARIABLE = "ORDERSTREAM_TEST_POSTGRESQL_URL"

PASSWORD = "super/secret:pass@word"  # what a URL must escape, and nothing may show

_POLL_SECONDS = 0.02

_SETTINGS = {
    "max_connections": "60",
    "shared_buffers": "32MB",
    # Nothing of a test has to survive a power cut.
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_prepared_transactions": "0",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "min_wal_size": "32MB",
}


class Databases:
    """Makes databases on a server, each a copy of a template with a schema."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._prefix = f"orderstream_test_{os.getpid()}"
        self._numbers = count(1)
        self._templates: dict[str, str] = {}

    def empty(self) -> URL:
        """The superuser's URL of a new database without tables."""
        return self._create("template0")

    def with_schema(self, schema: Schema = WRITE_SCHEMA) -> URL:
        """The superuser's URL of a new database with this schema, and an epoch of its own."""
        template = self._templates.get(schema.name)
        if template is None:
            made = self.empty()
            engine = open_engine(made.render_as_string(hide_password=False), access="write")
            upgrade_schema(engine, schema)
            engine.dispose()
            template = self._templates[schema.name] = str(made.database)
        return self._create(template)

    def drop(self, url: URL) -> None:
        """Delete a database, whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(str(url.database))))

    def copy(self, url: URL) -> URL:
        """A copy of a database as it is now. Breaks the connections to it."""
        self._let_in(url, allowed=False)
        self.disconnect(url)
        copy = self._create(str(url.database))
        self._let_in(url, allowed=True)
        return copy

    def replace(self, url: URL, by: URL) -> None:
        """Put another database in the place of one, as a fail-over does. Breaks the connections to it."""
        self.drop(url)
        old, new = sql.Identifier(str(by.database)), sql.Identifier(str(url.database))
        self.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new))

    def disconnect(self, url: URL) -> None:
        """Break all connections to a database, and wait until they are gone."""
        with psycopg.connect(text_of(self._server), autocommit=True) as connection:
            while connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (url.database,)
            ).fetchall():
                time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Delete the templates."""
        for name in self._templates.values():
            self.drop(self._server.set(database=name))

    def execute(self, statement: sql.Composed, database: str | None = None) -> None:
        """Run a statement as superuser, in the database that is always there unless another is named."""
        url = self._server if database is None else self._server.set(database=database)
        with psycopg.connect(text_of(url), autocommit=True) as connection:
            connection.execute(statement)

    def _let_in(self, url: URL, *, allowed: bool) -> None:
        name = sql.Identifier(str(url.database))
        self.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(name, sql.Literal(allowed)))

    def _create(self, template: str) -> URL:
        name = f"{self._prefix}_{next(self._numbers)}"
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return self._server.set(database=name)


def text_of(url: URL) -> str:
    """The URL as settings have it, with its password."""
    return url.render_as_string(hide_password=False)


@contextmanager
def postgresql_server() -> Iterator[PostgresServer]:
    """A server of its own, running, removed in the end."""
    with PostgresServer(_SETTINGS, PASSWORD) as server:
        yield server


@contextmanager
def databases() -> Iterator[Databases]:
    """Databases on the server that the environment names, else on one that is started for this process."""
    given = os.environ.get(URL_VARIABLE, "")
    if given:
        found = Databases(make_url(given).set(drivername="postgresql"))
        yield found
        found.close()
        return
    with postgresql_server() as server:
        yield Databases(server.url)
