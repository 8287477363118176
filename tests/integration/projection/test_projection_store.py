"""Rows and checkpoint move together, once, and equal a fold of the log. Invariant 7."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cqrs import failpoints
from cqrs.database.engine import open_engine
from cqrs.projection.checkpoint import CheckpointMoved, ProjectionOutdated
from cqrs.projection.projection import Projection
from cqrs.projection.view import View
from readmodel.orders import OrdersProjection
from readmodel.sales import SalesProjection
from readmodel.schema import PROJECTIONS, READ_METADATA
from tests.integration.projection.read_db import assert_shows, new_read_db, new_store
from tests.orders_history import EPOCH, History, random_history


@pytest.mark.parametrize("projection", [make() for make in PROJECTIONS], ids=lambda projection: projection.name)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_rows_are_the_same_however_the_log_is_cut_into_batches(
    tmp_path: Path, projection: Projection, seed: int
) -> None:
    history = random_history(500, seed)
    engine = new_read_db(tmp_path)
    store = new_store(engine, projection)
    checkpoint = store.open()
    chance = random.Random(seed)
    while checkpoint.position < 500:
        size = chance.choice((1, 2, 7, 50, 200))
        applied = store.apply(checkpoint, EPOCH, history.events[checkpoint.position : checkpoint.position + size])
        assert applied.failure is None
        checkpoint = applied.checkpoint
        if chance.random() < 0.3:
            checkpoint = store.open()
    store.close()
    assert_shows(engine, projection, history)
    engine.dispose()


@pytest.mark.parametrize("projection", [make() for make in PROJECTIONS], ids=lambda projection: projection.name)
def test_a_batch_needs_no_more_than_one_select_a_table(tmp_path: Path, projection: Projection) -> None:
    history = random_history(400, seed=5)
    engine = new_read_db(tmp_path)
    store = new_store(engine, projection)
    checkpoint = store.apply(store.open(), EPOCH, history.events[:200]).checkpoint
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    store.apply(checkpoint, EPOCH, history.events[200:])
    store.close()
    engine.dispose()
    selects = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(selects) <= len(projection.views), selects


def test_each_view_finds_its_rows_by_an_index(tmp_path: Path) -> None:
    engine = new_read_db(tmp_path)
    with engine.connect() as connection:
        for view in (view for make in PROJECTIONS for view in make().views if view.key_length):
            found = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + view._select, ("[]", 1)).all()
            assert any(row[3].startswith("SEARCH t USING") for row in found), (view.name, found)
    engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_describes(tmp_path: Path) -> None:
    engine = new_read_db(tmp_path)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), READ_METADATA) == []
    engine.dispose()


def test_a_zombie_cannot_write(tmp_path: Path) -> None:
    projection, history = OrdersProjection(), random_history(30, seed=3)
    engine = new_read_db(tmp_path)
    zombie, successor = new_store(engine, projection), new_store(engine, projection)
    old = zombie.open()
    checkpoint = successor.apply(successor.open(), EPOCH, history.events[:20]).checkpoint
    with pytest.raises(CheckpointMoved):
        zombie.apply(old, EPOCH, history.events[:10])
    assert_shows(engine, projection, history, 20)
    assert zombie.open() == checkpoint
    zombie.close()
    successor.close()
    engine.dispose()


def test_a_transaction_that_fails_leaves_neither_rows_nor_checkpoint(tmp_path: Path) -> None:
    projection, history = SalesProjection(), random_history(30, seed=3)
    engine = new_read_db(tmp_path)
    store = new_store(engine, projection)
    checkpoint = store.apply(store.open(), EPOCH, history.events[:10]).checkpoint

    def fail() -> None:
        raise sa.exc.OperationalError("COMMIT", {}, Exception("disk is full"))

    with failpoints.arm("projection.before_commit", fail), pytest.raises(sa.exc.OperationalError):
        store.apply(checkpoint, EPOCH, history.events[10:])
    assert_shows(engine, projection, history, 10)
    assert store.open() == checkpoint
    store.apply(checkpoint, EPOCH, history.events[10:])
    assert_shows(engine, projection, history)
    store.close()
    engine.dispose()


def test_events_before_one_that_cannot_be_applied_are_applied_and_none_after_it(tmp_path: Path) -> None:
    history = random_history(30, seed=4)
    history.cancel("o-unknown")
    history = random_history(60, seed=6, history=history)
    projection = OrdersProjection()
    engine = new_read_db(tmp_path)
    store = new_store(engine, projection)
    applied = store.apply(store.open(), EPOCH, history.events)
    assert applied.failure is not None
    assert "event 31 (orderstream.orders.v1.OrderCancelled of order o-unknown" in str(applied.failure)
    assert applied.checkpoint.position == 30
    assert_shows(engine, projection, history, 30)
    again = store.apply(applied.checkpoint, EPOCH, history.events[30:])
    assert (again.checkpoint, again.changed) == (applied.checkpoint, set())
    assert again.failure is not None
    store.close()
    engine.dispose()


def test_changed_rows_are_named_for_the_query_servers(tmp_path: Path) -> None:
    history = History()
    history.register("c1")
    history.create("o1", "c1")
    history.create("o2", "c1")
    history.rename("c1", "New name")
    history.address("o2", "London")
    engine = new_read_db(tmp_path)
    orders, sales = new_store(engine, OrdersProjection()), new_store(engine, SalesProjection())
    first = orders.apply(orders.open(), EPOCH, history.events[:2])
    assert first.changed == {"customers:c1", "orders:o1"}
    second = orders.apply(first.checkpoint, EPOCH, history.events[2:4])
    assert second.changed == {"customers:c1", "orders:o1", "orders:o2"}
    dashboard = sales.apply(sales.open(), EPOCH, history.events[:4])
    assert dashboard.changed == {"sales:dashboard"}
    nothing = sales.apply(dashboard.checkpoint, EPOCH, history.events[4:])
    assert (nothing.changed, nothing.checkpoint.position) == (set(), 5)
    orders.close()
    sales.close()
    engine.dispose()


def test_rows_of_another_version_of_the_projection_are_refused(tmp_path: Path) -> None:
    class NextOrders(OrdersProjection):
        code_version = OrdersProjection.code_version + 1

    engine = new_read_db(tmp_path)
    store = new_store(engine, OrdersProjection())
    store.open()
    store.close()
    newer = new_store(engine, NextOrders())
    with pytest.raises(ProjectionOutdated, match="version 1 of its code, this is version 2"):
        newer.open()
    newer.close()
    engine.dispose()


def test_the_engine_knows_every_table_of_the_read_db() -> None:
    views: list[View[Any]] = [view for make in PROJECTIONS for view in make().views]
    assert {view.name for view in views} | {"projections", "checkpoints"} == set(READ_METADATA.tables)


def test_a_read_db_of_the_same_rows_is_the_same_after_it_was_opened_again(tmp_path: Path) -> None:
    history = random_history(100, seed=8)
    engine = new_read_db(tmp_path)
    store = new_store(engine, OrdersProjection())
    store.apply(store.open(), EPOCH, history.events)
    store.close()
    engine.dispose()
    engine = open_engine(f"sqlite:///{tmp_path / 'read.db'}", access="write")
    assert_shows(engine, OrdersProjection(), history)
    engine.dispose()
