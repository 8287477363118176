"""SQLite: WAL mode, through the `pysqlite3` wheel, whose SQLite has the fix for the WAL-reset corruption (3.51.3)."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from cqrs.database.backend import EngineOptions
from cqrs.errors import ConfigurationError

OLDEST_SQLITE = (3, 51, 3)
"""Older ones can corrupt a WAL when two connections checkpoint at once (https://sqlite.org/wal.html#walresetbug)."""

_STATEMENT_CACHE = 512
"""Prepared statements kept by a connection: multi-row inserts have one text per row count."""


class Sqlite:
    """A file of this machine."""

    is_file = True

    def open(self, url: sa.URL, options: EngineOptions) -> sa.Engine:
        """See Backend. "write" begins transactions with BEGIN IMMEDIATE, "read" with BEGIN."""
        if url.database in (None, "", ":memory:"):
            raise ConfigurationError(f"{url}: name a file, as in sqlite:////var/lib/orderstream/write.db")
        engine = sa.create_engine(
            url,
            module=sqlite_module(),
            poolclass=QueuePool,
            pool_size=options.connections,
            max_overflow=0,
            connect_args={
                "check_same_thread": False,
                "timeout": options.busy_timeout_seconds,
                "cached_statements": _STATEMENT_CACHE,
                "isolation_level": None,
            },
        )
        begin = "BEGIN IMMEDIATE" if options.access == "write" else "BEGIN"
        synchronous = "FULL" if options.durable else "NORMAL"

        @sa.event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA synchronous = {synchronous}")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA temp_store = MEMORY")
            cursor.execute("PRAGMA cache_size = -65536")
            cursor.close()

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def migrating(self, connection: sa.Connection) -> AbstractContextManager[None]:
        """See Backend. Nothing to do: BEGIN IMMEDIATE has locked the file."""
        return nullcontext()

    def version_table(self, database: str) -> str:
        """See Backend. Each file has its own."""
        return "alembic_version"

    def explain(self, error: DBAPIError) -> str:
        """See Backend."""
        return str(error.orig)


def sqlite_module() -> ModuleType:
    """The SQLite library that is used.

    Raises:
        ConfigurationError: it is too old.
    """
    module: ModuleType
    try:
        module = import_module("pysqlite3.dbapi2")
    except ImportError:
        module = sqlite3
    if module.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigurationError(
            f"SQLite {module.sqlite_version} can corrupt a database in WAL mode; {oldest} or newer is needed: "
            "install the pysqlite3 package"
        )
    return module
