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

_Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that is indexed. In the order of its bytes, which no update of the operating system changes: an index that was
sorted by another order would be corrupt."""


def upgrade() -> None:
    """Create the tables, the first epoch and the triggers that keep events append-only."""
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("aggregate_type", sa.Text, nullable=False),
        sa.Column("aggregate_id", _Key, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("record_time", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("correlation_id", _Key),
        sa.Column("causation_id", _Key),
        sa.Column("actor", sa.Text),
        sa.Column("traceparent", sa.Text),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("aggregate_id", "version", name="events_aggregate_version"),
    )
    head = op.create_table(
        "log_head",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("record_time", sa.BigInteger, nullable=False),
    )
    epochs = op.create_table(
        "log_epochs",
        sa.Column("epoch", _Key, primary_key=True),
        sa.Column("fork_position", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "command_results",
        sa.Column("request_id", _Key, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("record_time", sa.BigInteger, nullable=False),
        sa.Index("command_results_record_time", "record_time"),
    )
    epoch = str(uuid4())
    op.bulk_insert(head, [{"id": 1, "position": 0, "hash": bytes(32), "epoch": epoch, "record_time": 0}])
    op.bulk_insert(epochs, [{"epoch": epoch, "fork_position": 0, "start_time": time.time_ns() // 1000}])
    _APPEND_ONLY[op.get_bind().dialect.name]()


def _append_only_on_sqlite() -> None:
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


def _append_only_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION 'events are append-only: % refused', TG_OP USING ERRCODE = 'restrict_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION events_refuse()"
    )
    # Also where session_replication_role switches ordinary triggers off.
    op.execute("ALTER TABLE events ENABLE ALWAYS TRIGGER events_append_only")


_APPEND_ONLY = {"sqlite": _append_only_on_sqlite, "postgresql": _append_only_on_postgresql}
