"""Reads a log for the audit: rows as stored, straight from the write DB. Reads only, and beside a running server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cli.failures import CheckFailed
from cqrs.database.engine import backend_of, open_engine, shown
from cqrs.database.migrations import check_schema
from cqrs.records import LogHead
from cqrs.store.epochs import LogEpoch, read_epochs
from cqrs.store.schema import WRITE_SCHEMA

Row = Sequence[Any]
"""A row of `events`, in column order. Of a log that was tampered with, a value may be of any type."""

_ROWS_PER_FETCH = 100
_DATA = 12
"""Where `data` is in a row."""

_READ_HEAD = sa.text("SELECT position, hash, epoch, record_time FROM log_head WHERE id = 1")
_READ = sa.text("SELECT * FROM events WHERE position >= :first AND position <= :last ORDER BY position LIMIT :count")
_HASH = sa.text("SELECT hash FROM events WHERE position = :position")
_BEYOND = sa.text("SELECT position FROM events WHERE position > :position ORDER BY position LIMIT 1")

# An event's version is 1, or its aggregate has the one before it earlier in the log. By induction there is no gap, and
# nothing has to be remembered, however many aggregates there are. The database does it along the index.
_WRONG_VERSION = sa.text(
    "SELECT e.position, e.aggregate_id, e.version, p.position, p.aggregate_type "
    "FROM events AS e LEFT JOIN events AS p ON p.aggregate_id = e.aggregate_id AND p.version = e.version - 1 "
    "WHERE e.position >= :first AND e.position <= :last AND (e.version < 1 OR (e.version > 1 AND "
    "(p.position IS NULL OR p.position >= e.position OR p.aggregate_type <> e.aggregate_type))) "
    "ORDER BY e.position LIMIT 1"
)
# The unique constraint forbids it, for as long as it is there.
_TWICE = sa.text("SELECT aggregate_id, version FROM events GROUP BY aggregate_id, version HAVING COUNT(*) > 1 LIMIT 1")
_SECOND = sa.text("SELECT MAX(position) FROM events WHERE aggregate_id = :aggregate_id AND version = :version")


_RESTORE = "restore it: `orderstream backup restore --help`"


class NoHead(CheckFailed):
    """The write DB has no row that says where its log ends."""


class Unreadable(CheckFailed):
    """The row at `position` cannot be read, while others can."""

    def __init__(self, position: int, cause: DBAPIError) -> None:
        super().__init__(f"position {position} cannot be read: {' '.join(str(cause.orig).split())}")
        self.position = position


class WrongVersion(NamedTuple):
    """An event whose version does not follow."""

    position: int
    text: str
    """What is wrong with it."""


@contextmanager
def open_log(url: str, *, any_revision: bool = False) -> Iterator[LogSource]:
    """The log of the write DB at `url`.

    Args:
        url: of the write DB, which is only read.
        any_revision: also if an older or newer release wrote it. (The columns that the audit reads never change.)

    Raises:
        SchemaMismatch: the schema is not that of this code.
        CheckFailed: it cannot be read.
        NoHead: it does not say where its log ends.
    """
    engine = open_engine(url, access="read", application_name="orderstream log")
    try:
        if not any_revision:
            check_schema(engine, WRITE_SCHEMA)
        yield LogSource(engine)
    except DBAPIError as error:
        raise CheckFailed(f"the write DB {shown(url)} cannot be read: {backend_of(url).explain(error)}") from error
    finally:
        engine.dispose()


class LogSource:
    """One write DB. Every call is a read-only transaction of its own, so that a long audit holds nothing up.

    Args:
        engine: of the write DB, for reading. It belongs to the caller.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def head(self) -> LogHead:
        """Where the log ends now.

        Raises:
            NoHead: the write DB does not say.
        """
        with self._engine.connect() as connection:
            row = connection.execute(_READ_HEAD).one_or_none()
        if row is None:
            raise NoHead("the write DB has no row in log_head", hint=_RESTORE)
        head = LogHead._make(row)
        if [*map(type, head)] != [int, bytes, str, int]:
            raise NoHead(f"the row in log_head was changed to what no head can be: {tuple(row)!r}", hint=_RESTORE)
        return head

    def epochs(self) -> list[LogEpoch]:
        """The log's epochs, oldest first."""
        with self._engine.connect() as connection:
            return read_epochs(connection)

    def read(self, first: int, last: int, count: int, max_bytes: int) -> list[Row]:
        """At most `count` rows with positions from `first` to `last`, in order, of about `max_bytes` at most.

        Raises:
            Unreadable: one of them cannot be read.
        """
        found: list[Row] = []
        size = 0
        try:
            with self._engine.connect() as connection:
                streaming = connection.execution_options(stream_results=True, max_row_buffer=_ROWS_PER_FETCH)
                with streaming.execute(_READ, {"first": first, "last": last, "count": count}) as result:
                    fetch = _fetcher(result)
                    while size < max_bytes and (rows := fetch(_ROWS_PER_FETCH)):
                        found += rows
                        size += sum(len(row[_DATA]) for row in rows if isinstance(row[_DATA], bytes))
        except Exception as error:  # the driver's own, where the cursor is
            self._explain(found[-1][0] + 1 if found else first, last, error)
            raise CheckFailed(f"reading the write DB failed: {' '.join(str(error).split())}", hint=_RESTORE) from error
        return found

    def row(self, position: int) -> Row | None:
        """The row at a position, or None."""
        with self._engine.connect() as connection:
            found = connection.execute(_READ, {"first": position, "last": position, "count": 1}).one_or_none()
        return None if found is None else tuple(found)

    def hash_at(self, position: int) -> bytes | None:
        """The stored hash of the event at a position, or None."""
        with self._engine.connect() as connection:
            found: bytes | None = connection.execute(_HASH, {"position": position}).scalar_one_or_none()
        return found

    def beyond(self, position: int) -> object:
        """The first position after this one, or None.

        On SQLite it can be what is no number, if somebody has put that there.
        """
        with self._engine.connect() as connection:
            return connection.execute(_BEYOND, {"position": position}).scalar_one_or_none()

    def wrong_version(self, first: int, last: int) -> WrongVersion | None:
        """The first event of this range whose version does not follow that of an earlier event of its aggregate."""
        with self._engine.connect() as connection:
            row = connection.execute(_WRONG_VERSION, {"first": first, "last": last}).one_or_none()
        if row is None:
            return None
        position, aggregate_id, version, earlier, earlier_type = row
        if not isinstance(version, int):
            text = f"{aggregate_id} has {version!r} as its version"
        elif version < 1:
            text = f"{aggregate_id} has version {version}; the first is 1"
        elif earlier is None:
            text = f"{aggregate_id} is at version {version}, and has no event of version {version - 1}"
        elif earlier >= position:
            text = f"{aggregate_id} is at version {version}, but reaches version {version - 1} only at {earlier}"
        else:
            text = f"{aggregate_id} is of another type than at position {earlier}, where it is a {earlier_type}"
        return WrongVersion(position, f"position {position}: {text}")

    def version_twice(self) -> WrongVersion | None:
        """An event that has a version of an aggregate that another event has as well."""
        with self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                # Goes through the whole index: of a long log that takes minutes.
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            row = connection.execute(_TWICE).one_or_none()
            if row is None:
                return None
            keys = {"aggregate_id": row.aggregate_id, "version": row.version}
            position = connection.execute(_SECOND, keys).scalar_one()
        return WrongVersion(position, f"position {position}: {row.aggregate_id} has version {row.version} twice")

    def _explain(self, first: int, last: int, error: Exception) -> None:
        """Find out at which position reading fails; raises Unreadable if it is at one, and returns if it is not."""
        for position in range(first, min(last, first + _ROWS_PER_FETCH) + 1):
            try:
                self.row(position)
            except DBAPIError as cause:
                with suppress(DBAPIError):
                    self.head()  # the database as a whole can be read
                    raise Unreadable(position, cause) from error
                return


def _fetcher(result: sa.CursorResult[Any]) -> Callable[[int], Sequence[Row]]:
    """What fetches the next rows. On SQLite the driver's tuples: SQLAlchemy's rows would cost as much as the hash."""
    fetch: Callable[[int], Sequence[Row]] = result.fetchmany
    if result.dialect.name == "sqlite":
        fetch = result.cursor.fetchmany
    return fetch
