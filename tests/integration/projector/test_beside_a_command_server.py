"""Command server, relay, broker and projections together: the views follow the log through deletions and kills."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from cqrs.projection.fold import fold
from cqrs.projection.status import LIVE, RETRYING
from orderstream.customers.v1.commands_pb2 import UpdateCustomerRequest
from readmodel.orders import OrdersProjection
from readmodel.sales import SalesProjection
from tests.integration.command_server.rig import CommandServer, command_server, order, run
from tests.integration.projection.read_db import standing
from tests.integration.projection.world import STREAM, Projector, World, world
from tests.orders_history import History

ORDERS, SALES = OrdersProjection(), SalesProjection()


async def place_orders(server: CommandServer, first: int, last: int) -> None:
    calls = [server.orders.CreateOrder(order(f"o-{number}"), timeout=20) for number in range(first, last + 1)]
    await asyncio.gather(*calls)


async def assert_views_equal_the_log(w: World, server: CommandServer, projector: Projector) -> None:
    log = await server.read_log()
    await projector.reaches(len(log))
    await projector.shows(LIVE)
    for projection in (ORDERS, SALES):
        checkpoint, found = standing(w.engine, projection)
        assert checkpoint is not None
        assert (checkpoint.position, checkpoint.hash) == (len(log), log[-1].hash)
        assert found == fold(projection, log)


def test_views_follow_the_log_through_a_deleted_stream_and_a_broker_that_restarts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            world(tmp_path, History(), stream=False) as w,
            command_server(tmp_path, nats_url=w.broker.url) as server,
        ):
            w.event_service = json.loads((tmp_path / "command.json").read_text())["grpc"]
            async with w.projector(ORDERS, SALES) as projector:
                await server.register()
                await place_orders(server, 1, 200)
                await server.customers.UpdateCustomer(UpdateCustomerRequest(customer_id="c-1", name="Countess"))
                await assert_views_equal_the_log(w, server, projector)

                await w.js.delete_stream(STREAM)
                await place_orders(server, 201, 300)
                await assert_views_equal_the_log(w, server, projector)

                await w.client.close()
                w.broker._port = w.broker.port
                await w.broker.stop()
                await projector.shows(RETRYING, "the broker is away")
                await place_orders(server, 301, 400)
                await w.broker.start()
                await w.connect()
                await assert_views_equal_the_log(w, server, projector)

    run(scenario)


def test_views_follow_the_log_through_a_command_server_that_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, History(), stream=False) as w, w.projector(ORDERS, SALES) as projector:
            async with command_server(tmp_path, nats_url=w.broker.url) as server:
                await server.register()
                await place_orders(server, 1, 100)
                server.process.kill()
            async with command_server(tmp_path, nats_url=w.broker.url) as server:
                await place_orders(server, 101, 200)
                await assert_views_equal_the_log(w, server, projector)

    run(scenario)
