"""What led to what: indexes for the events of one business process, and for those that an event led to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the indexes. They are partial: events without these ids, often nearly all of them, cost nothing."""
    for column in ("correlation_id", "causation_id"):
        present = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"events_{column}", "events", [column, "position"], postgresql_where=present, sqlite_where=present
        )
