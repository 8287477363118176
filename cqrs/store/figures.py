"""How large the write DB is, without counting what is large."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from cqrs.store.queries import LogFigures
from cqrs.store.schema import command_results, snapshots

_COUNTED_ROWS = 100_000
"""Up to here rows are counted, which takes some milliseconds; more are estimated."""


def read_figures(connection: sa.Connection) -> LogFigures:
    """The figures as of now, in a reading transaction."""
    return LogFigures(_size(connection), _rows(connection, snapshots), _rows(connection, command_results))


def _size(connection: sa.Connection) -> int:
    """Bytes on disk; on SQLite with the write-ahead log."""
    if connection.dialect.name == "postgresql":
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
    pages = connection.exec_driver_sql(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).scalar_one()
    wal = Path(f"{connection.engine.url.database}-wal")
    try:
        return int(pages) + wal.stat().st_size
    except FileNotFoundError:
        return int(pages)


def _rows(connection: sa.Connection, table: sa.Table) -> int:
    some = sa.select(sa.literal(1)).select_from(table).limit(_COUNTED_ROWS + 1).subquery()
    counted = int(connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())
    return counted if counted <= _COUNTED_ROWS else max(counted, _estimated_rows(connection, table))


def _estimated_rows(connection: sa.Connection, table: sa.Table) -> int:
    if connection.dialect.name == "postgresql":
        # What the last VACUUM or ANALYZE found; -1 before the first.
        statement = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)"
        return int(connection.exec_driver_sql(statement, (table.name,)).scalar_one() or 0)
    # Row ids are given in order, and old rows go first: what lies between the ends is nearly full.
    row_id: sa.ColumnClause[int] = sa.column("rowid")
    ends = sa.select(sa.func.max(row_id) - sa.func.min(row_id) + 1).select_from(table)
    return int(connection.execute(ends).scalar_one() or 0)
