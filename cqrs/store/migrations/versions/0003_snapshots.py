"""Snapshots: states of aggregates, so that not all of their events must be folded. They can be deleted at any time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


_Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""As in the first migration: in the order of its bytes."""


def upgrade() -> None:
    """Create the table, empty: snapshots are taken as aggregates change or are loaded.

    The fingerprint is part of the key: releases that run side by side do not take each other's place.
    """
    op.create_table(
        "snapshots",
        sa.Column("aggregate_id", _Key, nullable=False),
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
