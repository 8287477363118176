"""The event log: events, its head and epochs, and the outcomes of commands."""

from __future__ import annotations

import time
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, the first epoch and the triggers that keep events append-only."""
    op.create_table(
        "events",
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
    head = op.create_table(
        "log_head",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("record_time", sa.BigInteger, nullable=False),
    )
    epochs = op.create_table(
        "log_epochs",
        sa.Column("epoch", sa.Text, primary_key=True),
        sa.Column("fork_position", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "command_results",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("record_time", sa.BigInteger, nullable=False),
        sa.Index("command_results_record_time", "record_time"),
    )
    epoch = str(uuid4())
    op.bulk_insert(head, [{"id": 1, "position": 0, "hash": bytes(32), "epoch": epoch, "record_time": 0}])
    op.bulk_insert(epochs, [{"epoch": epoch, "fork_position": 0, "start_time": time.time_ns() // 1000}])
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER events_refuse_{verb.lower()} BEFORE {verb} ON events "
            f"BEGIN SELECT RAISE(ABORT, 'events are append-only: {verb} refused'); END"
        )
    # REPLACE deletes rows without asking the trigger above.
    op.execute(
        "CREATE TRIGGER events_refuse_replace BEFORE INSERT ON events "
        "WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position) "
        "OR EXISTS (SELECT 1 FROM events WHERE aggregate_id = NEW.aggregate_id AND version = NEW.version) "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only: the position or version is taken'); END"
    )
