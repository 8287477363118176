"""Why a command was sent, with each of its events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Events that were there before have none, and their hashes stay what they are."""
    op.add_column("events", sa.Column("reason", sa.Text))
