"""The statements of the write DB on SQLite. Rows are inserted as multi-row VALUES."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any

import sqlalchemy as sa

from cqrs.records import EventRecord, LogHead
from cqrs.store.port import StoredResult
from cqrs.store.schema import command_results, events

_ROWS_PER_INSERT = 256
_IDS_PER_SELECT = 500
_ROWS_PER_FETCH = 32
_STATEMENTS = 1024
"""Texts of inserts that are kept: one for each number of rows and set of columns."""

READ_HEAD = "SELECT position, hash, epoch, record_time FROM log_head WHERE id = 1"
"""Where the log ends. Locks as well, where BEGIN IMMEDIATE began the transaction."""

ADVANCE_HEAD = "UPDATE log_head SET position = ?, hash = ?, record_time = ? WHERE id = 1"
"""The log now ends elsewhere."""

READ_LOG = "SELECT * FROM events WHERE position >= ? ORDER BY position LIMIT ?"
"""A page of the log."""

READ_AGGREGATE = "SELECT * FROM events WHERE aggregate_id = ? AND version >= ? ORDER BY version LIMIT ?"
"""A page of one aggregate's events."""

AGGREGATES_AFTER = "SELECT DISTINCT aggregate_id FROM events WHERE position > ?"
"""Whom the events behind a position are about."""

PRUNE_RESULTS = (
    "DELETE FROM command_results WHERE request_id IN "
    "(SELECT request_id FROM command_results WHERE record_time < ? ORDER BY record_time LIMIT ?)"
)
"""Delete the oldest outcomes, a bounded number of them."""


class SqliteStatements:
    """See LogStatements."""

    def read_head(self, connection: sa.Connection) -> Sequence[Any] | None:
        """See LogStatements."""
        return connection.exec_driver_sql(READ_HEAD).one_or_none()

    def lock_head(self, connection: sa.Connection) -> Sequence[Any] | None:
        """See LogStatements. BEGIN IMMEDIATE has locked the database."""
        return self.read_head(connection)

    def read_log(
        self, connection: sa.Connection, from_position: int, limit: int, max_bytes: int | None
    ) -> Iterator[EventRecord]:
        """See LogStatements."""
        return _records(connection.exec_driver_sql(READ_LOG, (from_position, limit)))

    def read_aggregate(
        self, connection: sa.Connection, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None
    ) -> Iterator[EventRecord]:
        """See LogStatements."""
        return _records(connection.exec_driver_sql(READ_AGGREGATE, (aggregate_id, from_version, limit)))

    def event_at(self, connection: sa.Connection, position: int) -> EventRecord | None:
        """See LogStatements."""
        event = next(self.read_log(connection, position, 1, None), None)
        return event if event is not None and event.position == position else None

    def aggregates_after(self, connection: sa.Connection, position: int) -> Iterator[str]:
        """See LogStatements."""
        return (row[0] for row in connection.exec_driver_sql(AGGREGATES_AFTER, (position,)))

    def find_results(self, connection: sa.Connection, request_ids: Sequence[str]) -> Iterator[StoredResult]:
        """See LogStatements."""
        for ids in _parts(request_ids):
            statement = _select_in("command_results", "request_id", len(ids))
            yield from map(StoredResult._make, connection.exec_driver_sql(statement, ids))

    def append(
        self,
        connection: sa.Connection,
        new_events: Sequence[EventRecord],
        results: Sequence[StoredResult],
        head: LogHead,
    ) -> None:
        """See LogStatements."""
        _insert(connection, events, new_events)
        _insert(connection, command_results, results)
        if new_events:
            connection.exec_driver_sql(ADVANCE_HEAD, (head.position, head.hash, head.record_time))

    def prune_results(self, connection: sa.Connection, before: int, limit: int) -> int:
        """See LogStatements."""
        return connection.exec_driver_sql(PRUNE_RESULTS, (before, limit)).rowcount


def _records(rows: sa.CursorResult[Any]) -> Iterator[EventRecord]:
    """Rows as events, fetched as they are asked for."""
    while part := rows.fetchmany(_ROWS_PER_FETCH):
        yield from map(EventRecord._make, part)


def _parts(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """As many ids at a time as one statement takes."""
    for start in range(0, len(ids), _IDS_PER_SELECT):
        yield tuple(ids[start : start + _IDS_PER_SELECT])


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows that have all columns, in the table's order.

    The driver asks for a converter for each NULL and each `bytes`, which takes three times as long as all the rest of
    the insert: columns without a value in any row are left out, and blobs are given as bytearrays.
    """
    names, blobs = _columns(table)
    for start in range(0, len(rows), _ROWS_PER_INSERT):
        part = rows[start : start + _ROWS_PER_INSERT]
        present: list[str] = []
        values: list[Iterable[Any]] = []
        for name, column in zip(names, zip(*part, strict=True), strict=True):
            nulls = column.count(None)
            if nulls < len(part):
                present.append(name)
                values.append(map(bytearray, column) if name in blobs and not nulls else column)
        statement = _insert_rows(table.name, tuple(present), len(part))
        connection.exec_driver_sql(statement, tuple(chain.from_iterable(zip(*values, strict=True))))


@cache
def _columns(table: sa.Table) -> tuple[tuple[str, ...], frozenset[str]]:
    """The names of all columns, and of those that hold bytes."""
    blobs = frozenset(column.name for column in table.columns if isinstance(column.type, sa.LargeBinary))
    return tuple(column.name for column in table.columns), blobs


@lru_cache(_STATEMENTS)
def _insert_rows(table: str, columns: Sequence[str], rows: int) -> str:
    row = f"({','.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({','.join(columns)}) VALUES {','.join([row] * rows)}"  # noqa: S608 - our own names


@cache
def _select_in(table: str, column: str, count: int) -> str:
    return f"SELECT * FROM {table} WHERE {column} IN ({','.join('?' * count)})"  # noqa: S608 - as above
