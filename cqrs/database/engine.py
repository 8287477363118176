"""SQLAlchemy engines for the write DB and the read DB, by URL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from cqrs.database.backend import Backend, EngineOptions
from cqrs.database.postgresql import Postgresql
from cqrs.database.sqlite import Sqlite
from cqrs.errors import ConfigurationError

_BUSY_TIMEOUT_SECONDS = 10.0

_POSTGRESQL = Postgresql()
_BACKENDS: Mapping[str, Backend] = {"sqlite": Sqlite(), "postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}


def open_engine(
    url: str,
    *,
    access: Literal["write", "read"],
    durable: bool = False,
    connections: int = 1,
    busy_timeout_seconds: float = _BUSY_TIMEOUT_SECONDS,
    snapshot: bool = True,
    application_name: str = "orderstream",
) -> sa.Engine:
    """An engine for `url`.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`.
        access: "read" can only read, and all statements of a transaction see the same moment.
        durable: a commit has reached the disk when it returns (on SQLite not only with the next checkpoint).
        connections: the most connections that are open at a time.
        busy_timeout_seconds: how long a statement waits for another connection's lock before it fails.
        snapshot: False for "read" whose transactions are of one statement each: that saves round trips.
        application_name: what the database's operator sees, where there is such a thing.

    Raises:
        ConfigurationError: the URL is of an unsupported database, or the SQLite library is too old.
    """
    parsed = _parsed(url)
    options = EngineOptions(access, durable, connections, busy_timeout_seconds, snapshot, application_name)
    return backend_of(parsed).open(parsed, options)


def backend_of(url: str | sa.URL) -> Backend:
    """What is particular to the database behind `url`.

    Raises:
        ConfigurationError: it is of an unsupported one.
    """
    parsed = _parsed(url) if isinstance(url, str) else url
    backend = _BACKENDS.get(parsed.get_backend_name())
    if backend is None:
        raise ConfigurationError(f"{shown(parsed)}: give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE")
    return backend


def database_file(url: str) -> Path:
    """The file behind an SQLite URL."""
    database = _parsed(url).database
    if not database:
        raise ConfigurationError(f"{shown(url)}: name a file")
    return Path(database)


def shown(url: str | sa.URL) -> str:
    """The URL as it may be shown: without its password."""
    parsed = _parsed(url) if isinstance(url, str) else url
    if "password" in parsed.query:
        parsed = parsed.update_query_dict({"password": "***"})
    return parsed.render_as_string(hide_password=True)


def _parsed(url: str) -> sa.URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # From nothing: what cannot be read as a URL may have its password anywhere.
        raise ConfigurationError(
            "a database's URL cannot be read: give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE, with "
            "special characters of the password as %XX"
        ) from None
