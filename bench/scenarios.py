"""What is measured, one part of the system after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, TypeVar

import grpc

from bench.commands import COMMANDS_PER_MESSAGE, CommandSide, Updates
from bench.durable import fsync_ms, postgresql_commit_ms, sqlite_commit_ms
from bench.load import LoadClient
from bench.pairs import CommitTime, Turns, Yardstick
from bench.queries import QuerySide
from bench.report import Results
from bench.system import Served, System
from tools.postgresql_server import PostgresServer

IN_FLIGHT = (1, 16, 64)
"""How many calls wait at a time."""

_BULK_STREAMS = 4
_POSTGRESQL_SHAPES = ((1, 1), (1, 2), (2, 1))
"""Servers, and workers of each, of which the best is measured in full."""

_POSTGRESQL_SETTINGS = {"shared_buffers": "256MB", "fsync": "on", "synchronous_commit": "on", "max_wal_size": "2GB"}
"""Durable as it is by default; room enough that a short run is not about checkpoints."""


_P = TypeVar("_P")


class Plan(NamedTuple):
    """How long to measure."""

    turns: Turns
    """Of each call and the echo."""
    updates: int
    """How many status updates of orders that are not in memory are made ready."""
    visible: int
    """How many orders are followed from command to query."""


class Bench:
    """What all scenarios need, and what they have found."""

    def __init__(self, yardstick: Yardstick, plan: Plan, scratch: Path) -> None:
        """Measure with `yardstick`, by `plan`, with files in `scratch`."""
        self.results = Results()
        self._yardstick = yardstick
        self._plan = plan
        self._scratch = scratch

    async def sqlite(self) -> None:
        """Commands on SQLite, with relay and broker at work."""
        self.results.others["fsync_ms"] = await asyncio.to_thread(fsync_ms, self._scratch)
        async with AsyncExitStack() as stack:
            system = System(self._scratch / "sqlite", stack)
            await system.start_broker()
            cold = Updates(steps=1)
            async with system.command_servers() as servers, command_side(servers) as commands:
                await self._commands(commands, "sqlite", _off_loop(sqlite_commit_ms, self._scratch))
                await cold.stock(commands, self._plan.updates)
            async with system.command_servers() as servers, command_side(servers) as commands:
                name = "update_status.cold.sqlite"
                pair = await self._yardstick.measure(commands.update_status(cold), IN_FLIGHT[-1], self._plan.turns)
                self.results.add(name, pair)

    async def whole_system(self) -> None:
        """Cached queries, the way from command to query, and commands with everything at work."""
        async with AsyncExitStack() as stack:
            system = System(self._scratch / "whole", stack)
            await system.start_broker()
            servers = await stack.enter_async_context(system.command_servers())
            commands = await stack.enter_async_context(command_side(servers))
            await system.start_projector(servers[0].address)
            address = (await system.start_query_server()).address
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            await self._queries(QuerySide(address, channel), commands)

    async def postgresql(self) -> None:
        """Commands on PostgreSQL, with as many server processes as serve best."""
        with PostgresServer(_POSTGRESQL_SETTINGS, "bench") as server:
            url = server.url.render_as_string(hide_password=False)
            async with AsyncExitStack() as stack:
                system = System(self._scratch / "postgresql", stack, write_db_url=url)
                await system.start_broker()
                best = await self._best_shape(system)
                async with system.command_servers(*best) as servers, command_side(servers) as commands:
                    await self._commands(commands, "postgresql", _off_loop(postgresql_commit_ms, url))

    async def _commands(self, commands: CommandSide, database: str, commit_time: CommitTime) -> None:
        turns = self._plan.turns
        for in_flight in IN_FLIGHT:
            alone = commit_time if in_flight == 1 else None
            pair = await self._yardstick.measure(commands.create_order, in_flight, turns, alone)
            self.results.add(f"create_order.{database}", pair)
        pair = await self._yardstick.measure(commands.update_status(Updates()), IN_FLIGHT[-1], turns)
        self.results.add(f"update_status.{database}", pair)
        await self._bulk(commands, database)

    async def _bulk(self, commands: CommandSide, database: str) -> None:
        """Bulk streams beside single calls, in turn, after a warm-up that does not count."""
        turns = self._plan.turns
        rate = await stream_orders(self._yardstick.client, commands, 3_000)
        unary = await self._yardstick.run(commands.create_order, 1_500, IN_FLIGHT[-1])
        bulk, ratios = [], []
        for _ in range(turns.rounds):
            unary = await self._yardstick.run(
                commands.create_order, max(500, round(unary.calls_per_second * turns.seconds)), IN_FLIGHT[-1]
            )
            rate = await stream_orders(self._yardstick.client, commands, round(rate * turns.seconds))
            bulk.append(rate)
            ratios.append(rate / unary.calls_per_second)
        self.results.others[f"bulk.{database}.commands_per_second"] = median(bulk)
        self.results.others[f"bulk.{database}.ratio_to_unary"] = median(ratios)

    async def _best_shape(self, system: System) -> tuple[int, int]:
        """How many servers, with how many workers each, take the most commands on PostgreSQL."""
        rates: dict[tuple[int, int], float] = {}
        turns = Turns(min(3, self._plan.turns.rounds), self._plan.turns.seconds)
        for shape in _POSTGRESQL_SHAPES:
            async with system.command_servers(*shape) as servers, command_side(servers) as commands:
                pair = await self._yardstick.measure(commands.create_order, IN_FLIGHT[-1], turns)
            figures = pair.figures("")
            name = f"create_order.postgresql.servers_{shape[0]}_workers_{shape[1]}.c{IN_FLIGHT[-1]}.ratio_to_echo"
            rates[shape] = self.results.others[name] = figures[f".c{IN_FLIGHT[-1]}.ratio_to_echo"]
        best = max(rates, key=lambda shape: rates[shape])
        self.results.others["create_order.postgresql.servers"] = best[0]
        self.results.others["create_order.postgresql.workers_of_each"] = best[1]
        return best

    async def _queries(self, queries: QuerySide, commands: CommandSide) -> None:
        turns, others = self._plan.turns, self.results.others
        get_order = await queries.get_order(await commands.place_order())
        for in_flight in IN_FLIGHT:
            self.results.add("get_order.cached", await self._yardstick.measure(get_order, in_flight, turns))

        lags = [await queries.wait_until_visible(await commands.place_order()) for _ in range(self._plan.visible)]
        cuts = quantiles(lags, n=100, method="inclusive")
        others |= {"commit_to_visible.p50_ms": 1000 * cuts[49], "commit_to_visible.p99_ms": 1000 * cuts[98]}

        name = "create_order.sqlite.whole_system"
        self.results.add(name, await self._yardstick.measure(commands.create_order, IN_FLIGHT[-1], turns))
        lag = await queries.wait_until_visible(await commands.place_order())
        others[f"{name}.behind_after_load_ms"] = 1000 * lag


@asynccontextmanager
async def command_side(servers: Sequence[Served]) -> AsyncIterator[CommandSide]:
    """A client of these command servers, ready to measure."""
    addresses = [server.address for server in servers]
    async with grpc.aio.insecure_channel(addresses[0]) as channel:
        commands = CommandSide(addresses, channel)
        await commands.open()
        yield commands


async def stream_orders(client: LoadClient, commands: CommandSide, orders: int) -> float:
    """Place about so many orders by bulk streams; returns how many a second."""
    messages = max(_BULK_STREAMS, round(orders / COMMANDS_PER_MESSAGE))
    result = await client.stream(commands.bulk, messages, COMMANDS_PER_MESSAGE, _BULK_STREAMS)
    await commands.verify_added(messages * COMMANDS_PER_MESSAGE)
    return result.commands_per_second


def _off_loop(work: Callable[[_P], float], argument: _P) -> CommitTime:
    """Measure on a thread, so that the loop goes on."""
    return lambda: asyncio.to_thread(work, argument)
