"""Read DBs for tests."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa

from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.projection.checkpoint import Checkpoint, read_checkpoint
from cqrs.projection.fold import Tables, fold, read_rows
from cqrs.projection.projection import Projection
from cqrs.projection.store import ProjectionStore
from cqrs.records import EventRecord
from readmodel.schema import READ_SCHEMA
from tests.orders_history import History


def new_read_db(folder: Path) -> sa.Engine:
    engine = open_engine(f"sqlite:///{folder / 'read.db'}", access="write", connections=4)
    upgrade_schema(engine, READ_SCHEMA)
    return engine


def new_store(engine: sa.Engine, projection: Projection) -> ProjectionStore:
    return ProjectionStore(engine, projection, threading.Lock())


def standing(engine: sa.Engine, projection: Projection) -> tuple[Checkpoint | None, Tables]:
    """Checkpoint and rows, of one snapshot."""
    with engine.connect() as connection, connection.begin():
        checkpoint = read_checkpoint(connection, projection.name)
        return checkpoint, read_rows(connection, projection, checkpoint.generation if checkpoint else 1)


def assert_shows(engine: sa.Engine, projection: Projection, history: History, position: int | None = None) -> None:
    """The rows are those of a fold of the history up to the position (its end), and so says the checkpoint."""
    expected: list[EventRecord] = history.events if position is None else history.events[:position]
    checkpoint, found = standing(engine, projection)
    assert checkpoint is not None
    assert checkpoint.position == len(expected)
    if expected:
        assert (checkpoint.hash, checkpoint.epoch) == (expected[-1].hash, history.epoch)
        assert checkpoint.record_time == expected[-1].record_time
    assert found == fold(projection, expected)
