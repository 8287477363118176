"""Checkpoints: how far a projection has applied the log. Invariant 7.

A checkpoint moves in the transaction of the rows that it speaks of, and only from where the mover believes it to be: an
applier that lost its place to another one (a zombie) cannot write.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from cqrs.errors import OperatorError, OrderstreamError
from cqrs.projection.projection import Projection
from cqrs.projection.tables import checkpoints, projections
from cqrs.records import GENESIS_HASH, EventRecord

FIRST_GENERATION = 1


class Checkpoint(NamedTuple):
    """The last event whose effect one generation's rows show."""

    generation: int
    slot: int
    position: int
    """0: none yet."""
    hash: bytes
    """GENESIS_HASH at position 0."""
    epoch: str
    """Empty at position 0."""
    record_time: int
    """Microseconds since 1970; 0 at position 0."""

    def after(self, record: EventRecord, epoch: str) -> Checkpoint:
        """The checkpoint once `record` is applied."""
        return self._replace(position=record.position, hash=record.hash, epoch=epoch, record_time=record.record_time)


class CheckpointMoved(OrderstreamError):
    """Another applier moved the checkpoint; nothing of the transaction was written."""


class ProjectionOutdated(OperatorError):
    """The rows were made by another version of the projection's code."""


def read_checkpoint(connection: sa.Connection, projection: str, slot: int = 0) -> Checkpoint | None:
    """The checkpoint of the generation that queries read; None if the projection has never run on this database."""
    return _read(connection, projection, slot)


def open_checkpoint(connection: sa.Connection, projection: Projection, slot: int = 0) -> Checkpoint:
    """The checkpoint to go on from, made if it is not there. To be called in a writing transaction.

    Raises:
        ProjectionOutdated: another version of the projection's code made the rows.
    """
    version = connection.execute(
        sa.select(projections.c.code_version).where(projections.c.name == projection.name)
    ).scalar_one_or_none()
    if version is None:
        connection.execute(
            projections.insert().values(
                name=projection.name,
                code_version=projection.code_version,
                serving_generation=FIRST_GENERATION,
                epoch="",
            )
        )
    elif version != projection.code_version:
        raise ProjectionOutdated(
            f"the rows of projection {projection.name} were made by version {version} of its code, this is version "
            f"{projection.code_version}: run the release that made them, or stop the projector, delete the read DB "
            "and start again; it is rebuilt from the log"
        )
    found = _read(connection, projection.name, slot)
    if found is not None:
        return found
    generation = connection.execute(
        sa.select(projections.c.serving_generation).where(projections.c.name == projection.name)
    ).scalar_one()
    start = Checkpoint(generation, slot, 0, GENESIS_HASH, "", 0)
    connection.execute(checkpoints.insert().values(projection=projection.name, **start._asdict()))
    return start


def move_checkpoint(connection: sa.Connection, projection: str, old: Checkpoint, new: Checkpoint) -> None:
    """Move the checkpoint from `old` to `new`: a compare-and-set in the rows' transaction.

    Raises:
        CheckpointMoved: it is not at `old`; roll back.
    """
    moved = connection.exec_driver_sql(
        _MOVE,
        (
            *(new.position, new.hash, new.epoch, new.record_time),
            *(projection, old.generation, old.slot, old.position, old.hash, old.epoch),
        ),
    )
    if moved.rowcount != 1:
        raise CheckpointMoved(
            f"projection {projection}: the checkpoint is no longer at {old.position}; another projector applies the "
            "same projection"
        )
    if old.epoch != new.epoch:
        connection.execute(projections.update().where(projections.c.name == projection).values(epoch=new.epoch))


_MOVE = (
    "UPDATE checkpoints SET position = ?, hash = ?, epoch = ?, record_time = ? "
    "WHERE projection = ? AND generation = ? AND slot = ? AND position = ? AND hash = ? AND epoch = ?"
)


def _read(connection: sa.Connection, projection: str, slot: int) -> Checkpoint | None:
    row = connection.execute(_READ, {"name": projection, "slot": slot}).one_or_none()
    return None if row is None else Checkpoint(*row)


_READ = (
    sa.select(*(checkpoints.c[field] for field in Checkpoint._fields))
    .join(
        projections,
        (projections.c.name == checkpoints.c.projection)
        & (projections.c.serving_generation == checkpoints.c.generation),
    )
    .where(projections.c.name == sa.bindparam("name"), checkpoints.c.slot == sa.bindparam("slot"))
)
