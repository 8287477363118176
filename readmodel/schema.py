"""The schema of the read DB: the engine's tables and those of every view, and the folder of its migrations."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from cqrs.database.migrations import Schema
from cqrs.projection.tables import metadata
from readmodel import orders, sales

READ_SCHEMA = Schema("read DB", Path(__file__).parent / "migrations")

READ_METADATA: sa.MetaData = metadata
"""Every table of the read DB. Importing the views above has put theirs in."""

PROJECTIONS = (orders.OrdersProjection, sales.SalesProjection)
"""The projections that fill it. Each applies the whole log by itself, with a checkpoint of its own."""
