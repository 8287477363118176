"""The statements on snapshots, and those that load aggregates from them. They work on SQLite and on PostgreSQL.

A snapshot is read together with the log's event of its aggregate and version, so that it can be told at once whether it
is one of this history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cqrs.records import EventRecord
from cqrs.snapshots.snapshot import Bound, Candidate, Outlook, Snapshot
from cqrs.snapshots.thinning import Held, to_delete
from cqrs.store.schema import events, snapshots

_IDS_PER_SELECT = 500

_COLUMNS = len(Snapshot._fields)
_TYPE = Snapshot._fields.index("aggregate_type")
_SQLITE = sqlite.dialect()
_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy has no annotation here

_EVENT = ", ".join(f"e.{column.name}" for column in events.columns)
_EVENT_OF_SNAPSHOT = "LEFT JOIN events e ON e.aggregate_id = s.aggregate_id AND e.version = s.version"


def _snapshot_and_event(dialect: sa.Dialect) -> str:
    """The columns of a snapshot, and position and hash of its event.

    Each as what it should be, text as bytes: in SQLite a column may hold anything, and neither a bad disk nor a stray
    UPDATE may make a load fail.
    """
    columns = []
    for column in snapshots.columns:
        is_text = isinstance(column.type, sa.Text) and dialect is _SQLITE
        columns.append(f"CAST(s.{column.name} AS {'BLOB' if is_text else column.type.compile(dialect)})")
    return ", ".join((*columns, "e.position", "e.hash"))


@cache
def _outlook_sqlite(ids: int, fingerprints: int) -> str:
    """For each wanted id: the newest version, and the newest usable snapshot with its event."""
    usable = f"IN ({','.join('?' * fingerprints)})"
    return (
        f"WITH wanted(id) AS (VALUES {','.join(['(?)'] * ids)}) "  # noqa: S608 - names of our own
        "SELECT wanted.id, (SELECT MAX(version) FROM events WHERE aggregate_id = wanted.id), "
        f"{_snapshot_and_event(_SQLITE)} FROM wanted LEFT JOIN snapshots s ON s.aggregate_id = wanted.id "
        f"AND s.fingerprint {usable} AND s.version = "
        f"(SELECT MAX(version) FROM snapshots WHERE aggregate_id = wanted.id AND fingerprint {usable}) "
        f"{_EVENT_OF_SNAPSHOT}"
    )


@cache
def _tails_sqlite(ranges: int) -> str:
    """The events of each wanted id from one version to another."""
    return (
        f"WITH wanted(id, first, last) AS (VALUES {','.join(['(?,?,?)'] * ranges)}) SELECT {_EVENT} FROM wanted "  # noqa: S608 - as above
        "CROSS JOIN events e WHERE e.aggregate_id = wanted.id AND e.version BETWEEN wanted.first AND wanted.last "
        "ORDER BY e.aggregate_id, e.version"
    )


def _read_snapshot(dialect: sa.Dialect) -> sa.TextClause:
    """The newest snapshot of an aggregate up to a point, of those with some fingerprint."""
    return sa.text(
        f"SELECT {_snapshot_and_event(dialect)} FROM snapshots s {_EVENT_OF_SNAPSHOT} "  # noqa: S608 - as above
        "WHERE s.aggregate_id = :aggregate_id AND s.version <= :version AND s.position <= :position "
        "AND s.record_time <= :record_time AND s.fingerprint IN :fingerprints ORDER BY s.version DESC LIMIT 1"
    ).bindparams(sa.bindparam("fingerprints", expanding=True))


_READ_SNAPSHOT = {dialect.name: _read_snapshot(dialect) for dialect in (_SQLITE, _POSTGRESQL)}

_OUTLOOK_POSTGRESQL = (
    "SELECT wanted.id, newest.version, "  # noqa: S608 - as above
    f"{_snapshot_and_event(_POSTGRESQL)} FROM unnest(%b::text[]) AS wanted(id) "
    "CROSS JOIN LATERAL (SELECT MAX(version) AS version FROM events WHERE aggregate_id = wanted.id) newest "
    "LEFT JOIN LATERAL (SELECT * FROM snapshots WHERE aggregate_id = wanted.id AND fingerprint = ANY(%b::bytea[]) "
    "ORDER BY version DESC LIMIT 1) s ON true "
    "LEFT JOIN LATERAL (SELECT position, hash FROM events WHERE aggregate_id = s.aggregate_id AND version = s.version "
    "LIMIT 1) e ON true"
)
"""As for SQLite. LATERAL, like what follows: joined otherwise, a log of few aggregates was read from end to end."""

_TAILS_POSTGRESQL = (
    f"SELECT {_EVENT} FROM unnest(%b::text[], %b::bigint[], %b::bigint[]) AS wanted(id, first, last) "  # noqa: S608 - as above
    "CROSS JOIN LATERAL (SELECT * FROM events WHERE aggregate_id = wanted.id "
    "AND version BETWEEN wanted.first AND wanted.last ORDER BY version) e ORDER BY e.aggregate_id, e.version"
)


_WRITE = sa.text(
    f"INSERT INTO snapshots ({', '.join(Snapshot._fields)}) "  # noqa: S608 - as above
    f"VALUES ({', '.join(f':{column}' for column in Snapshot._fields)}) "
    "ON CONFLICT (aggregate_id, version, fingerprint) DO UPDATE SET "
    + ", ".join(
        f"{column} = excluded.{column}" for column in ("position", "hash", "aggregate_type", "record_time", "state")
    )
    + ", checksum = excluded.checksum"
)
"""Keep a snapshot, in the place of one of the same version: that may be damaged."""

_HELD = sa.text(
    f"SELECT s.aggregate_id, s.fingerprint, s.version, e.hash = s.hash FROM snapshots s {_EVENT_OF_SNAPSHOT} "  # noqa: S608 - as above
    "WHERE s.aggregate_id IN :ids"
).bindparams(sa.bindparam("ids", expanding=True))
"""Which snapshots there are of some aggregates, and whether the log has the events that they end with."""

_KEY = (snapshots.c.aggregate_id, snapshots.c.version, snapshots.c.fingerprint)


def read_outlook(
    connection: sa.Connection, aggregate_ids: Sequence[str], fingerprints: Sequence[bytes]
) -> dict[str, Outlook]:
    """See AggregateReader."""
    found: dict[str, Outlook] = {}
    for start in range(0, len(aggregate_ids), _IDS_PER_SELECT):
        ids = aggregate_ids[start : start + _IDS_PER_SELECT]
        for row in connection.exec_driver_sql(*_outlook_of(connection, ids, fingerprints)):
            if row[1] is not None:
                found[row[0]] = Outlook(row[1], None if row[2] is None else _candidate(row[2:]))
    return found


def read_tails(connection: sa.Connection, versions: Mapping[str, range]) -> list[EventRecord]:
    """See AggregateReader."""
    found: list[EventRecord] = []
    wanted = [(aggregate_id, each.start, each.stop - 1) for aggregate_id, each in versions.items()]
    for start in range(0, len(wanted), _IDS_PER_SELECT):
        part = wanted[start : start + _IDS_PER_SELECT]
        found.extend(map(EventRecord._make, connection.exec_driver_sql(*_tails_of(connection, part))))
    return found


def read_snapshot(
    connection: sa.Connection, aggregate_id: str, bound: Bound, fingerprints: Sequence[bytes]
) -> Candidate | None:
    """See AggregateReader."""
    arguments = {"aggregate_id": aggregate_id, **bound._asdict(), "fingerprints": list(fingerprints)}
    row = connection.execute(_READ_SNAPSHOT[connection.dialect.name], arguments).one_or_none()
    return None if row is None else _candidate(row)


def write_snapshots(connection: sa.Connection, new: Sequence[Snapshot], keep: int) -> None:
    """See SnapshotStore. In a writing transaction, which the caller commits."""
    if not new:
        return
    # In one order everywhere, so that two servers that write the same ones do not wait for each other by turns.
    connection.execute(_WRITE, [snapshot._asdict() for snapshot in sorted(new)])
    written = {snapshot.aggregate_id: snapshot.fingerprint for snapshot in new}
    held: dict[str, list[Held]] = {}
    for aggregate_id, fingerprint, version, in_log in connection.execute(_HELD, {"ids": list(written)}):
        held.setdefault(aggregate_id, []).append(Held(fingerprint, version, bool(in_log)))
    doomed = [
        (aggregate_id, each.version, each.fingerprint)
        for aggregate_id, of_one in held.items()
        for each in to_delete(of_one, written[aggregate_id], keep)
    ]
    if doomed:
        connection.execute(_delete(sa.select(*_KEY).where(sa.tuple_(*_KEY).in_(doomed))))


def drop_snapshots(connection: sa.Connection, aggregate_type: str | None, limit: int) -> int:
    """Delete at most `limit` snapshots, of one type or of all; returns how many.

    In a writing transaction, which the caller commits. They are made again as aggregates change or are loaded.
    """
    chosen = sa.select(*_KEY).limit(limit)
    if aggregate_type is not None:
        chosen = chosen.where(snapshots.c.aggregate_type == aggregate_type)
    return connection.execute(_delete(chosen)).rowcount


def count_snapshots(connection: sa.Connection, aggregate_type: str | None = None) -> int:
    """How many snapshots there are, of one type or of all."""
    statement = sa.select(sa.func.count()).select_from(snapshots)
    if aggregate_type is not None:
        statement = statement.where(snapshots.c.aggregate_type == aggregate_type)
    return connection.execute(statement).scalar_one()


def _delete(chosen: sa.Select[tuple[str, int, bytes]]) -> sa.Delete:
    """Delete the snapshots with the chosen keys, but for those that another server is at work on.

    Waiting for one of these, while it waits for one of ours, would be a deadlock.
    """
    return snapshots.delete().where(sa.tuple_(*_KEY).in_(chosen.with_for_update(skip_locked=True)))


def _candidate(columns: Sequence[Any]) -> Candidate:
    snapshot = Snapshot._make(columns[:_COLUMNS])
    if isinstance(columns[0], bytes):
        id_, type_ = (str(text, "utf-8", "replace") for text in (columns[0], columns[_TYPE]))
        snapshot = snapshot._replace(aggregate_id=id_, aggregate_type=type_)
    return Candidate(snapshot, columns[_COLUMNS], columns[_COLUMNS + 1])


def _outlook_of(
    connection: sa.Connection, ids: Sequence[str], fingerprints: Sequence[bytes]
) -> tuple[str, tuple[Any, ...]]:
    if connection.dialect.name == "postgresql":
        return _OUTLOOK_POSTGRESQL, (list(ids), list(fingerprints))
    return _outlook_sqlite(len(ids), len(fingerprints)), (*ids, *fingerprints, *fingerprints)


def _tails_of(connection: sa.Connection, wanted: Sequence[tuple[str, int, int]]) -> tuple[str, tuple[Any, ...]]:
    if connection.dialect.name == "postgresql":
        return _TAILS_POSTGRESQL, tuple(map(list, zip(*wanted, strict=True)))
    return _tails_sqlite(len(wanted)), tuple(chain.from_iterable(wanted))
