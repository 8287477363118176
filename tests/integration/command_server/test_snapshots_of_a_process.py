"""Snapshots as a command server takes and uses them, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa

from cqrs.database.engine import open_engine
from cqrs.store.schema import snapshots
from orderstream.orders.v1.commands_pb2 import AddOrderItemRequest, AddOrderItemResponse
from orderstream.orders.v1.order_pb2 import OrderItem
from orderstream.types.v1.money_pb2 import Money
from tests.integration.command_server.rig import CommandServer, command_server, order, run
from tests.integration.logs import new_write_db

EVERY = 50
FOLDED = "orderstream_events_folded_total"
TAKEN = "orderstream_snapshots_taken_total"
USED = "orderstream_snapshots_used_total"
REFUSED = 'orderstream_snapshots_refused_total{reason="checksum"}'


@pytest.fixture(params=["sqlite", "postgresql"])
def write_db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_write_db(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgresql_write_db"))


async def add_pen(server: CommandServer) -> AddOrderItemResponse:
    pen = OrderItem(sku="pen", name="A pen", quantity=1, unit_price=Money(currency_code="USD", units=1))
    response: AddOrderItemResponse = await server.orders.AddOrderItem(
        AddOrderItemRequest(order_id="o-1", item=pen), timeout=20
    )
    return response


async def order_of(server: CommandServer, events: int) -> None:
    """Make the order `o-1` with so many events; the last of them is answered last."""
    await server.register()
    await server.orders.CreateOrder(order("o-1"))
    for _ in range(events - 1):
        await add_pen(server)


@contextmanager
def connected(write_db: str, access: Literal["read", "write"]) -> Iterator[sa.Connection]:
    engine = open_engine(write_db, access=access)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


async def until_snapshot(write_db: str, version: int) -> None:
    """Wait until the newest snapshot is of this version."""
    deadline, newest = asyncio.get_running_loop().time() + 20, None
    while newest != version:
        assert asyncio.get_running_loop().time() < deadline, f"the newest snapshot is of version {newest} after 20 s"
        await asyncio.sleep(0.05)
        with connected(write_db, "read") as connection:
            newest = connection.execute(sa.select(sa.func.max(snapshots.c.version))).scalar_one()


def damage_all(write_db: str) -> None:
    with connected(write_db, "write") as connection:
        assert connection.execute(sa.update(snapshots).values(state=b"damaged")).rowcount > 0


def test_after_a_restart_a_command_on_a_long_order_reads_only_what_came_after_its_snapshot(
    tmp_path: Path, write_db: str
) -> None:
    async def scenario() -> None:
        settings = {"write_db_url": write_db, "snapshot_order_events": str(EVERY)}
        async with command_server(tmp_path, **settings) as server:
            await order_of(server, 220)
            await until_snapshot(write_db, 200)
            assert await server.metric(FOLDED) == 0, "all of it was in memory"
        async with command_server(tmp_path, **settings) as server:
            response = await add_pen(server)
            assert (response.version, response.order.items[1].quantity) == (221, 220)
            assert response.order.total.units == 240
            assert await server.metric(USED) == 1
            assert await server.metric(FOLDED) == 20

    run(scenario)


def test_damaged_snapshots_cost_a_fold_and_are_replaced_while_commands_are_right(tmp_path: Path, write_db: str) -> None:
    async def scenario() -> None:
        settings = {"write_db_url": write_db, "snapshot_order_events": str(EVERY)}
        async with command_server(tmp_path, **settings) as server:
            await order_of(server, 120)
            await until_snapshot(write_db, 100)
        damage_all(write_db)
        async with command_server(tmp_path, **settings) as server:
            response = await add_pen(server)
            assert (response.version, response.order.items[1].quantity) == (121, 120)
            assert await server.metric(FOLDED) == 120
            assert await server.metric(REFUSED) >= 1
            await server.until(TAKEN, 1)
        async with command_server(tmp_path, **settings) as server:
            assert (await add_pen(server)).version == 122
            assert await server.metric(USED) == 1
            assert await server.metric(FOLDED) < EVERY

    run(scenario)


def test_commands_go_on_while_a_snapshot_hangs(tmp_path: Path, write_db: str) -> None:
    async def scenario() -> None:
        go = tmp_path / "go"
        settings = {"write_db_url": write_db, "snapshot_order_events": "5"}
        async with command_server(tmp_path, failpoints=f"snapshots.before_write=pause:1:{go}", **settings) as server:
            async with asyncio.timeout(20):
                await order_of(server, 60)
            assert await server.metric(TAKEN) == 0
            go.touch()
            await server.until(TAKEN, 2)
            assert (await add_pen(server)).version == 61

    run(scenario)


def test_without_snapshots_everything_is_folded_and_right(tmp_path: Path, write_db: str) -> None:
    async def scenario() -> None:
        settings = {"write_db_url": write_db, "snapshot_order_events": "0"}
        async with command_server(tmp_path, **settings) as server:
            await order_of(server, 60)
        async with command_server(tmp_path, **settings) as server:
            assert (await add_pen(server)).version == 61
            assert await server.metric(FOLDED) == 60
            assert await server.metric(TAKEN) == 0

    run(scenario)
