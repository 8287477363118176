"""SQLAlchemy engines for the write DB and the read DB.

SQLite runs in WAL mode, through the `pysqlite3` wheel, whose SQLite has the fix for the WAL-reset corruption
(3.51.3).
"""

from __future__ import annotations

import sqlite3
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from cqrs.errors import ConfigurationError

OLDEST_SQLITE = (3, 51, 3)
"""Older ones can corrupt a WAL when two connections checkpoint at once (https://sqlite.org/wal.html#walresetbug)."""

_STATEMENT_CACHE = 512
"""Prepared statements kept by a connection: multi-row inserts have one text per row count."""

_BUSY_TIMEOUT_SECONDS = 10.0


def open_engine(
    url: str,
    *,
    access: Literal["write", "read"],
    durable: bool = False,
    connections: int = 1,
    busy_timeout_seconds: float = _BUSY_TIMEOUT_SECONDS,
) -> sa.Engine:
    """An engine for `url`.

    Args:
        url: SQLAlchemy URL; `sqlite:///FILE`.
        access: "write" begins transactions with BEGIN IMMEDIATE, "read" with BEGIN (a snapshot).
        durable: fsync each commit before it returns (`synchronous=FULL`), not only each checkpoint.
        connections: the most connections that are open at a time.
        busy_timeout_seconds: how long a statement waits for another connection's lock before it fails.

    Raises:
        ConfigurationError: the URL is of an unsupported database, or the SQLite library is too old.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError(f"{parsed.render_as_string()}: only sqlite:///FILE is supported")
    if parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(f"{url}: name a file, as in sqlite:////var/lib/orderstream/write.db")
    engine = sa.create_engine(
        parsed,
        module=_sqlite_module(),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        connect_args={
            "check_same_thread": False,
            "timeout": busy_timeout_seconds,
            "cached_statements": _STATEMENT_CACHE,
            "isolation_level": None,
        },
    )
    begin = "BEGIN IMMEDIATE" if access == "write" else "BEGIN"

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.execute("PRAGMA cache_size = -65536")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def database_file(url: str) -> Path:
    """The file behind an SQLite URL."""
    database = make_url(url).database
    if not database:
        raise ConfigurationError(f"{url}: name a file")
    return Path(database)


def _sqlite_module() -> ModuleType:
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
