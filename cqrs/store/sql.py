"""The event store on SQLAlchemy Core.

Invariant 2: the first statement of an appending transaction locks the head row (on SQLite BEGIN IMMEDIATE locks the
database), so positions are given in commit order and without a gap. Rows go to the driver as one multi-row statement:
SQLAlchemy's per-row work would cost a fifth of the throughput.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cqrs import failpoints
from cqrs.database.engine import open_engine
from cqrs.database.migrations import check_schema
from cqrs.errors import ConfigurationError
from cqrs.records import EventRecord, LogHead
from cqrs.store.port import CommitUncertain, StoredResult, StoreError, group_by_aggregate, within_bytes
from cqrs.store.schema import WRITE_SCHEMA, command_results, events, log_head

_ROWS_PER_INSERT = 256
_IDS_PER_SELECT = 500
_ROWS_PER_FETCH = 32

_READ_HEAD = "SELECT position, hash, epoch, record_time FROM log_head WHERE id = 1"
_ADVANCE_HEAD = "UPDATE log_head SET position = ?, hash = ?, record_time = ? WHERE id = 1"
_EVENT_ID_AT = "SELECT event_id FROM events WHERE position = ?"
_READ_LOG = "SELECT * FROM events WHERE position >= ? ORDER BY position LIMIT ?"
_READ_AGGREGATE = "SELECT * FROM events WHERE aggregate_id = ? AND version >= ? ORDER BY version LIMIT ?"
_PRUNE_RESULTS = (
    "DELETE FROM command_results WHERE request_id IN "
    "(SELECT request_id FROM command_results WHERE record_time < ? ORDER BY record_time LIMIT ?)"
)


class SqlEventStore:
    """The write DB."""

    def __init__(self, url: str, *, readers: int = 4) -> None:
        """Open the write DB at `url`, with at most `readers` reading connections.

        Raises:
            SchemaMismatch: the schema is not that of this code.
            ConfigurationError: the URL or the SQLite library will not do.
        """
        self._write_engine = open_engine(url, access="write", durable=True)
        self._read_engine = open_engine(url, access="read", connections=readers)
        self._writer: sa.Connection | None = None
        try:
            check_schema(self._read_engine, WRITE_SCHEMA)
        except DBAPIError as error:
            self.close()
            raise ConfigurationError(f"the write DB {url} cannot be opened: {error.orig}") from error
        except BaseException:
            self.close()
            raise

    def read_head(self) -> LogHead:
        """See EventReader."""
        with self._reading() as connection:
            return _read_head(connection)

    def read_log(self, from_position: int, limit: int, max_bytes: int | None = None) -> list[EventRecord]:
        """See EventReader."""
        with self._reading() as connection:
            rows = connection.exec_driver_sql(_READ_LOG, (from_position, limit))
            return within_bytes(_records(rows), max_bytes)

    def read_aggregate(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None = None
    ) -> list[EventRecord]:
        """See EventReader."""
        with self._reading() as connection:
            rows = connection.exec_driver_sql(_READ_AGGREGATE, (aggregate_id, from_version, limit))
            return within_bytes(_records(rows), max_bytes)

    def load(self, aggregate_ids: Sequence[str]) -> dict[str, list[EventRecord]]:
        """See EventReader."""
        with self._reading() as connection:
            return _load(connection, aggregate_ids)

    @contextmanager
    def begin_append(self) -> Iterator[_SqlTransaction]:
        """See EventStore."""
        try:
            if self._writer is None:
                self._writer = self._write_engine.connect()
            transaction = self._writer.begin()
            try:
                yield _SqlTransaction(self._writer, transaction)
            finally:
                if transaction.is_active:
                    transaction.rollback()
        except DBAPIError as error:
            self._drop_writer()
            raise StoreError(f"the write DB refused: {error.orig}") from error
        except CommitUncertain:
            self._drop_writer()
            raise

    def prune_results(self, before: int, limit: int) -> int:
        """See EventStore."""
        with self.begin_append() as transaction:
            pruned = transaction.prune_results(before, limit)
            if pruned:
                transaction.commit()
            return pruned

    def close(self) -> None:
        """See EventStore."""
        self._drop_writer()
        self._write_engine.dispose()
        self._read_engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._read_engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise StoreError(f"the write DB refused: {error.orig}") from error
        except PoolTimeout as error:
            raise StoreError("all reading connections of the write DB are in use") from error

    def _drop_writer(self) -> None:
        """Close the appending connection for good: after a failure its state is unknown."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.invalidate()
            writer.close()


class _SqlTransaction:
    def __init__(self, connection: sa.Connection, transaction: sa.RootTransaction) -> None:
        self._connection = connection
        self._transaction = transaction
        self.head = _read_head(connection)

    def find_results(self, request_ids: Sequence[str]) -> dict[str, StoredResult]:
        found: dict[str, StoredResult] = {}
        for start in range(0, len(request_ids), _IDS_PER_SELECT):
            ids = tuple(request_ids[start : start + _IDS_PER_SELECT])
            rows = self._connection.exec_driver_sql(_select_in("command_results", "request_id", len(ids)), ids)
            found.update({row[0]: StoredResult._make(row) for row in rows})
        return found

    def load(self, aggregate_ids: Sequence[str]) -> dict[str, list[EventRecord]]:
        return _load(self._connection, aggregate_ids)

    def event_id_at(self, position: int) -> str | None:
        row = self._connection.exec_driver_sql(_EVENT_ID_AT, (position,)).one_or_none()
        return None if row is None else str(row[0])

    def append(self, new_events: Sequence[EventRecord], results: Sequence[StoredResult], head: LogHead) -> None:
        self._insert(events.name, len(events.columns), new_events)
        self._insert(command_results.name, len(command_results.columns), results)
        if new_events:
            self._connection.exec_driver_sql(_ADVANCE_HEAD, (head.position, head.hash, head.record_time))

    def commit(self) -> None:
        try:
            failpoints.reach("store.before_commit")
            self._transaction.commit()
            failpoints.reach("store.after_commit")
        except (DBAPIError, failpoints.Triggered) as error:
            raise CommitUncertain("COMMIT failed; whether it took effect is not known") from error

    def prune_results(self, before: int, limit: int) -> int:
        return self._connection.exec_driver_sql(_PRUNE_RESULTS, (before, limit)).rowcount

    def _insert(self, table: str, columns: int, rows: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(rows), _ROWS_PER_INSERT):
            part = rows[start : start + _ROWS_PER_INSERT]
            self._connection.exec_driver_sql(_insert_rows(table, columns, len(part)), tuple(chain.from_iterable(part)))


def _read_head(connection: sa.Connection) -> LogHead:
    row = connection.exec_driver_sql(_READ_HEAD).one_or_none()
    if row is None:
        raise StoreError(f"the write DB has no row in {log_head.name}: restore it from a backup")
    return LogHead._make(row)


def _load(connection: sa.Connection, aggregate_ids: Sequence[str]) -> dict[str, list[EventRecord]]:
    found: list[EventRecord] = []
    for start in range(0, len(aggregate_ids), _IDS_PER_SELECT):
        ids = tuple(aggregate_ids[start : start + _IDS_PER_SELECT])
        statement = _select_in("events", "aggregate_id", len(ids)) + " ORDER BY aggregate_id, version"
        found.extend(EventRecord._make(row) for row in connection.exec_driver_sql(statement, ids))
    return group_by_aggregate(aggregate_ids, found)


def _records(rows: sa.CursorResult[Any]) -> Iterator[EventRecord]:
    """Rows as events, fetched as they are asked for."""
    while part := rows.fetchmany(_ROWS_PER_FETCH):
        yield from map(EventRecord._make, part)


@cache
def _insert_rows(table: str, columns: int, rows: int) -> str:
    row = f"({','.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 - table names are our own


@cache
def _select_in(table: str, column: str, count: int) -> str:
    return f"SELECT * FROM {table} WHERE {column} IN ({','.join('?' * count)})"  # noqa: S608 - as above
