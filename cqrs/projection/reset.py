"""Begins projections anew, from the log's first event on: after the log was set back, their rows show what never was.

It works beside running projectors. Each begins again in a new generation, so a batch that one of them has in hand is of
a checkpoint that is not there any more, and is refused by its compare-and-set (invariant 7).
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cqrs.projection.projection import Projection
from cqrs.projection.tables import checkpoints, metadata, projections
from cqrs.records import GENESIS_HASH

_SLOT = 0


def reset_projections(connection: sa.Connection, those: Sequence[Projection]) -> dict[str, int]:
    """Delete all rows of the read DB, and set these projections to the log's beginning; returns their new generations.

    To be called in a writing transaction. Whoever reads sees the old rows until it is committed, and none from then on.
    """
    newest = sa.select(checkpoints.c.projection, sa.func.max(checkpoints.c.generation)).group_by(
        checkpoints.c.projection
    )
    before = {name: int(generation) for name, generation in connection.execute(newest)}
    for table in reversed(metadata.sorted_tables):
        connection.execute(table.delete())
    generations = {each.name: before.get(each.name, 0) + 1 for each in those}
    for each in those:
        generation = generations[each.name]
        connection.execute(
            projections.insert().values(
                name=each.name, code_version=each.code_version, serving_generation=generation, epoch=""
            )
        )
        connection.execute(
            checkpoints.insert().values(
                projection=each.name,
                generation=generation,
                slot=_SLOT,
                position=0,
                hash=GENESIS_HASH,
                epoch="",
                record_time=0,
            )
        )
    return generations
