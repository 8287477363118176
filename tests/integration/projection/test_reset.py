"""Read models that begin anew, beside projectors that are in the middle of something."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.projection.checkpoint import CheckpointMoved, move_checkpoint, open_checkpoint, read_checkpoint
from cqrs.projection.reset import reset_projections
from cqrs.projection.tables import metadata
from cqrs.records import GENESIS_HASH
from readmodel.orders import OrdersProjection
from readmodel.sales import SalesProjection
from readmodel.schema import READ_SCHEMA


def test_everything_is_emptied_and_a_batch_in_hand_is_refused_even_at_the_beginning(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'read.db'}", access="write")
    upgrade_schema(engine, READ_SCHEMA)
    orders, sales = OrdersProjection(), SalesProjection()
    with engine.begin() as connection:
        zombie = open_checkpoint(connection, orders)
        assert zombie.position == 0
        connection.execute(sa.text("INSERT INTO customers VALUES (1, 'ada', 'Ada', '', 0, 0, 1, 1)"))
        generations = reset_projections(connection, [orders, sales])
        assert generations == {"orders": 2, "sales": 1}
    with engine.begin() as connection:
        counted = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }
        assert counted.pop("projections") == counted.pop("checkpoints") == 2
        assert set(counted.values()) == {0}
        found = read_checkpoint(connection, "orders")
        assert found is not None
        assert (found.generation, found.position, found.hash, found.epoch) == (2, 0, GENESIS_HASH, "")
        assert open_checkpoint(connection, orders) == found, "the projector goes on from there"
        moved = zombie._replace(position=5, hash=b"h" * 32, epoch="the lost branch")
        with pytest.raises(CheckpointMoved):
            move_checkpoint(connection, "orders", zombie, moved)
    engine.dispose()
