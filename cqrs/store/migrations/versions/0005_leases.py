"""Leases: which of several processes does what only one needs to do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


_Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""As in the first migration: in the order of its bytes."""


def upgrade() -> None:
    """Create the table, empty."""
    op.create_table(
        "leases",
        sa.Column("name", _Key, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
