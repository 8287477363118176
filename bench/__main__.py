"""Measure commands, cached queries and the lag between them, each beside a bare gRPC echo.

    python -m bench [--quick]

Everything runs in processes of its own on the loopback device. A call and the echo, with a request of the same size,
take turns in short rounds, and the figures are medians over the rounds: what else the machine does hits both. Commands
are measured with the relay and the broker at work and, as `create_order.sqlite.whole_system`, with projector and query
server keeping up beside them. Writes build/bench.json and prints a table. Takes about a minute and a half.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import NamedTuple

import grpc

from bench.load import LoadClient, Target, find_client
from bench.report import print_table, write_json
from bench.scenarios import CommandSide, Pair, QuerySide, Turns, Verify, measure_pair
from bench.system import System

IN_FLIGHT = (1, 16, 64)
"""How many calls wait at a time."""


class Plan(NamedTuple):
    """How long to measure."""

    turns: Turns
    """Of each call and the echo."""
    visible: int
    """How many orders are followed from command to query."""


FULL = Plan(Turns(rounds=5, seconds=0.8), visible=300)
QUICK = Plan(Turns(rounds=2, seconds=0.2), visible=50)


class Measured(NamedTuple):
    """What a run of the bench has found."""

    pairs: dict[str, list[Pair]]
    """By the name of the call; a pair for each number in flight."""
    others: dict[str, float]
    """Figures of what is no call."""

    def figures(self) -> dict[str, float]:
        """Everything by its name."""
        return {
            figure: value
            for name, pairs in self.pairs.items()
            for pair in pairs
            for figure, value in pair.figures(name).items()
        } | self.others


async def measure(client: LoadClient, plan: Plan, scratch: Path) -> Measured:
    """Start everything, measure, stop everything."""
    measured = Measured({}, {})
    async with AsyncExitStack() as stack:
        system = System(scratch, stack)
        echo = await system.start_echo()

        async def beside_echo(name: str, target: Target, verify: Verify, levels: Sequence[int] = IN_FLIGHT) -> None:
            measured.pairs[name] = [
                await measure_pair(client, echo, target, verify, in_flight=in_flight, turns=plan.turns)
                for in_flight in levels
            ]

        await system.start_broker()
        address = await system.start_command_server()
        commands = CommandSide(address, await stack.enter_async_context(grpc.aio.insecure_channel(address)))
        await commands.register_customer()
        await beside_echo("create_order.sqlite", commands.create_order, commands.verify_created)

        await system.start_projector()
        address = await system.start_query_server()
        queries = QuerySide(address, await stack.enter_async_context(grpc.aio.insecure_channel(address)))
        get_order = await queries.get_order(await commands.place_order())
        await beside_echo("get_order.cached", get_order, queries.verify_answered)

        lags = [1000 * await queries.wait_until_visible(await commands.place_order()) for _ in range(plan.visible)]
        cuts = quantiles(lags, n=100, method="inclusive")
        measured.others.update({"commit_to_visible.p50_ms": cuts[49], "commit_to_visible.p99_ms": cuts[98]})

        name = "create_order.sqlite.whole_system"
        await beside_echo(name, commands.create_order, commands.verify_created, IN_FLIGHT[-1:])
        lag = await queries.wait_until_visible(await commands.place_order())
        measured.others[f"{name}.behind_after_load_ms"] = 1000 * lag
    return measured


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds: proves that it works, measures little")
    parser.add_argument(
        "--output", type=Path, default=Path("build/bench.json"), metavar="FILE", help="where to write [%(default)s]"
    )
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    options.output.parent.mkdir(parents=True, exist_ok=True)
    begin = monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.output.parent) as folder:
        scratch = Path(folder).resolve()
        client = find_client(scratch)
        measured = asyncio.run(measure(client, plan, scratch))
    write_json(measured.figures(), options.output)
    print_table(
        measured.pairs,
        measured.others,
        f"{plan.turns.rounds} rounds of {plan.turns.seconds} s, {client.name}, {os.cpu_count()} CPUs",
    )
    print(f"{options.output} written after {monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
