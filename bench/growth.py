"""What commands, memory and loading cost as logs and aggregates grow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from bench.chart import Line, line_chart
from bench.loading import measure_loading
from bench.pairs import Turns, Yardstick
from bench.report import Results
from bench.scenarios import IN_FLIGHT, command_side, stream_orders
from bench.system import System, new_write_db

_ORDERS_PER_RUN = 50_000


async def measure_log_growth(yardstick: Yardstick, sizes: Sequence[int], turns: Turns, scratch: Path) -> Results:
    """Commands a second, single and in bulk, and the server's memory, at each of `sizes` events in the log.

    The log is SQLite, relay and broker are at work. Every command creates an order: there are as many as events.
    """
    results = Results()
    async with AsyncExitStack() as stack:
        system = System(scratch / "growth", stack)
        await system.start_broker()
        servers = await stack.enter_async_context(system.command_servers())
        commands = await stack.enter_async_context(command_side(servers))
        memory = 0
        for size in sizes:
            while (missing := size - commands.position) > 0:
                await stream_orders(yardstick.client, commands, min(_ORDERS_PER_RUN, missing))
            before, memory = memory, sum(server.resident_bytes for server in servers)
            pair = await yardstick.measure(commands.create_order, IN_FLIGHT[-1], turns)
            orders = min(_ORDERS_PER_RUN, size // 4)
            bulk = [await stream_orders(yardstick.client, commands, orders) for _ in range(turns.rounds)]
            prefix = f"growth.events_{size}"
            results.others |= pair.figures(f"{prefix}.create_order") | {
                f"{prefix}.bulk.commands_per_second": median(bulk),
                f"{prefix}.memory_mb": memory / 1e6,
            }
            if before:
                results.others["memory.ratio_to_a_tenth_of_the_commands"] = memory / before
    return results


async def measure_aggregate_growth(lengths: Sequence[int], scratch: Path) -> Results:
    """Milliseconds to load an order of each of `lengths` events, on SQLite."""
    url = new_write_db(scratch / "loading.db")
    results = Results()
    for length in lengths:
        times = await asyncio.to_thread(measure_loading, url, length)
        results.others[f"loading.events_{length}.without_snapshots_ms"] = 1000 * times.without_snapshots
        results.others[f"loading.events_{length}.with_snapshots_ms"] = 1000 * times.with_snapshots
    return results


def draw(figures: dict[str, float], sizes: Sequence[int], lengths: Sequence[int], folder: Path) -> None:
    """Draw what was measured, as commands.svg and loading.svg in `folder`."""

    def line(name: str, xs: Sequence[int], figure: str) -> Line:
        return Line(name, [(x, figures[figure.format(x)]) for x in xs])

    folder.mkdir(parents=True, exist_ok=True)
    commands = line_chart(
        "Commands per second as the log grows (SQLite)",
        "events in the log",
        "commands per second",
        [
            line("bulk, 64 in a message", sizes, "growth.events_{}.bulk.commands_per_second"),
            line("bare echo, 64 in flight", sizes, "growth.events_{}.create_order.echo.c64.calls_per_second"),
            line("calls, 64 in flight", sizes, "growth.events_{}.create_order.c64.calls_per_second"),
        ],
    )
    loading = line_chart(
        "Time to load an order that is not in memory (SQLite)",
        "events of the order",
        "milliseconds",
        [
            line("without snapshots", lengths, "loading.events_{}.without_snapshots_ms"),
            line("with snapshots", lengths, "loading.events_{}.with_snapshots_ms"),
        ],
        log_y=True,
    )
    (folder / "commands.svg").write_text(commands)
    (folder / "loading.svg").write_text(loading)
