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
    sa.UniqueConstraint("aggregate_id", "version", name="events_aggregate_version"),
)

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
