"""The engine's own tables in the read DB: which projections there are, and how far each has got.

`metadata` is the read DB's: the views' tables join it. A view's table has `generation` as the first column of its
primary key, so that a rebuild can fill another generation beside the one that is served.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

projections = sa.Table(
    "projections",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    # `code_version` of the projection class that fills the serving generation.
    sa.Column("code_version", sa.Integer, nullable=False),
    # The generation that queries read. The first is 1.
    sa.Column("serving_generation", sa.Integer, nullable=False),
    # The log's epoch (a UUID); empty until the projection has applied its first event.
    sa.Column("epoch", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("projection", sa.Text, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True),
    # 0: one slot applies all partitions.
    sa.Column("slot", sa.Integer, primary_key=True),
    # The last log position whose effect the rows show; 0: none. The row exists from the projection's first start on.
    sa.Column("position", sa.BigInteger, nullable=False),
    # Hash of that event (32 bytes); GENESIS_HASH at position 0.
    sa.Column("hash", sa.LargeBinary, nullable=False),
    # The log's epoch; empty at position 0, until the first event is applied.
    sa.Column("epoch", sa.Text, nullable=False),
    # Record time of that event, microseconds since 1970; 0 at position 0.
    sa.Column("record_time", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
