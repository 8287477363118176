"""The tables of the write DB. Column order of `events` is that of EventRecord, and part of the hash chain."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from cqrs.database.migrations import Schema

WRITE_SCHEMA = Schema("write DB", Path(__file__).parent / "migrations")

metadata = sa.MetaData()

events = sa.Table(
    "events",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("aggregate_type", sa.Text, nullable=False),
    sa.Column("aggregate_id", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("record_time", sa.BigInteger, nullable=False),
    sa.Column("request_id", sa.Text),
    sa.Column("correlation_id", sa.Text),
    sa.Column("causation_id", sa.Text),
    sa.Column("actor", sa.Text),
    sa.Column("traceparent", sa.Text),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("reason", sa.Text),
    sa.UniqueConstraint("aggregate_id", "version", name="events_aggregate_version"),
)

for _column in (events.c.correlation_id, events.c.causation_id):
    _present = _column.is_not(None)
    sa.Index(f"events_{_column.name}", _column, events.c.position, postgresql_where=_present, sqlite_where=_present)

log_head = sa.Table(
    "log_head",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("epoch", sa.Text, nullable=False),
    sa.Column("record_time", sa.BigInteger, nullable=False),
)

log_epochs = sa.Table(
    "log_epochs",
    metadata,
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("fork_position", sa.BigInteger, nullable=False),
    sa.Column("start_time", sa.BigInteger, nullable=False),
)

command_results = sa.Table(
    "command_results",
    metadata,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=False),
    sa.Column("record_time", sa.BigInteger, nullable=False),
    sa.Index("command_results_record_time", "record_time"),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("aggregate_id", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("aggregate_type", sa.Text, nullable=False),
    sa.Column("record_time", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("checksum", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("aggregate_id", "version", "fingerprint"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expire_time", sa.BigInteger, nullable=False),
)
