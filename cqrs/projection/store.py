"""Writes a projection's rows and checkpoint: one transaction a batch. Runs on the projection's own thread."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import sqlalchemy as sa

from cqrs.errors import OrderstreamError
from cqrs.failpoints import reach
from cqrs.projection.checkpoint import Checkpoint, CheckpointMoved, move_checkpoint, open_checkpoint
from cqrs.projection.fold import describe
from cqrs.projection.projection import Projection, decode
from cqrs.projection.rows import RowSet
from cqrs.projection.view import Key, View
from cqrs.records import EventRecord


class ApplyFailed(OrderstreamError):
    """An event could not be applied. Everything before it is, nothing after it."""

    def __init__(self, record: EventRecord, cause: Exception) -> None:
        super().__init__(f"{describe(record)} cannot be applied: {type(cause).__name__}: {cause}")
        self.record = record


class Applied(NamedTuple):
    """What became of a batch."""

    checkpoint: Checkpoint
    """Where the read model is now."""
    changed: set[str]
    """Change keys of the rows that changed."""
    failure: ApplyFailed | None = None
    """Why the batch was not applied to its end. The events before are committed."""


class ProjectionStore:
    """One projection's side of the read DB. Not thread-safe: one thread at a time.

    Args:
        engine: of the read DB, for writing.
        projection: whose rows these are.
        write_lock: held while a transaction writes. Projections of one process share one when the database (SQLite) has
            a single writer anyway: waiting for a lock is quicker than polling for it.
    """

    def __init__(self, engine: sa.Engine, projection: Projection, write_lock: AbstractContextManager[Any]) -> None:
        self._engine = engine
        self._projection = projection
        self._write_lock = write_lock
        self._connection: sa.Connection | None = None

    def open(self) -> Checkpoint:
        """Open a new connection and read the checkpoint, which is made if it is not there.

        Raises:
            ProjectionOutdated: another version of the projection's code made the rows.
        """
        self.close()
        self._connection = connection = self._engine.connect()
        with self._write_lock, connection.begin():
            return open_checkpoint(connection, self._projection)

    def close(self) -> None:
        """Give the connection back. `open` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def apply(self, checkpoint: Checkpoint, epoch: str, records: Sequence[EventRecord]) -> Applied:
        """Apply the events that follow the checkpoint, and move it, in one transaction.

        If that fails for a reason that may lie in an event, the events are applied one by one up to the one that fails.

        Raises:
            CheckpointMoved: another applier has moved the checkpoint; nothing is written.
            sqlalchemy.exc.OperationalError: the database failed; what the COMMIT did, if it got there, `open` tells.
        """
        try:
            return self._apply(checkpoint, epoch, records)
        except (CheckpointMoved, sa.exc.OperationalError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever an event's data or a projection's defect may raise
            if len(records) == 1:
                return Applied(checkpoint, set(), _failure(records[0], error))
        changed: set[str] = set()
        for record in records:
            try:
                applied = self._apply(checkpoint, epoch, [record])
            except (CheckpointMoved, sa.exc.OperationalError):
                raise
            except Exception as error:  # noqa: BLE001 - as above
                return Applied(checkpoint, changed, _failure(record, error))
            checkpoint = applied.checkpoint
            changed |= applied.changed
        return Applied(checkpoint, changed)

    def _apply(self, checkpoint: Checkpoint, epoch: str, records: Sequence[EventRecord]) -> Applied:
        connection = self._connection
        if connection is None:
            raise RuntimeError("open() comes first")
        projection = self._projection
        generation = checkpoint.generation
        events = [event for record in records if (event := decode(projection, record)) is not None]
        moved = checkpoint.after(records[-1], epoch)

        def load(view: View[Any], keys: Collection[Key]) -> Sequence[tuple[Any, ...]]:
            return view.load(connection, generation, keys)

        with self._write_lock, connection.begin():
            # First, so that a zombie ends here, before it takes rows for wrong that are only newer than it thinks.
            move_checkpoint(connection, projection.name, checkpoint, moved)
            changed: set[str] = set()
            if events:
                rows = RowSet(load)
                for needs in projection.needs(events, rows):
                    rows.preload(needs)
                for event in events:
                    projection.apply(event, rows)
                changed = rows.write(connection, generation)
            reach("projection.before_commit")
        reach("projection.after_commit")
        return Applied(moved, changed)


def _failure(record: EventRecord, error: Exception) -> ApplyFailed:
    failure = ApplyFailed(record, error)
    failure.__cause__ = error
    return failure
