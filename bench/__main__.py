"""Measure the system beside a bare gRPC echo.

    python -m bench [--quick] [--growth] [--output FILE] [--charts FOLDER]

Everything runs in processes of its own on the loopback device. A call and the echo, with a request of the same size,
take turns in short rounds, and the figures are medians over the rounds: what else the machine does hits both. Commands
are measured with the relay and the broker at work, on SQLite and on PostgreSQL, and, as
`create_order.sqlite.whole_system`, with projector and query server keeping up beside them. Writes build/bench.json and
prints a table. Takes about four minutes.

With --growth it measures instead what a command costs as the log grows to a million events, and an aggregate as it gets
longer, and draws the charts of docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from bench.growth import draw, measure_aggregate_growth, measure_log_growth
from bench.load import LoadClient
from bench.pairs import Turns, Yardstick
from bench.report import Results, print_table, write_json
from bench.scenarios import Bench, Plan
from bench.system import running


class _Effort(NamedTuple):
    """How much is measured."""

    plan: Plan
    log_sizes: Sequence[int]
    """Events in the log, each ten times as many as before."""
    lengths: Sequence[int]
    """Events of an aggregate."""


_FULL = _Effort(
    Plan(Turns(rounds=5, seconds=0.8), updates=30_000, visible=300), (10_000, 100_000, 1_000_000), (10, 1_000, 100_000)
)
_QUICK = _Effort(Plan(Turns(rounds=2, seconds=0.2), updates=5_000, visible=50), (1_000, 10_000), (10, 1_000))


async def _measure(options: argparse.Namespace, effort: _Effort, scratch: Path) -> Results:
    ready = str(scratch / "echo.json")
    async with running("echo", scratch, "-m", "bench.echo_server", ready) as echo:
        yardstick = Yardstick(LoadClient(scratch), echo.address)
        if options.growth:
            results = await measure_log_growth(yardstick, effort.log_sizes, effort.plan.turns, scratch)
            results.others |= (await measure_aggregate_growth(effort.lengths, scratch)).others
            draw(results.others, effort.log_sizes, effort.lengths, options.charts)
            return results
        bench = Bench(yardstick, effort.plan, scratch)
        await bench.sqlite()
        await bench.postgresql()
        await bench.whole_system()
        return bench.results


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds: proves that it works, measures little")
    parser.add_argument(
        "--growth", action="store_true", help="what things cost as log and aggregates grow; draws charts"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/bench.json"), metavar="FILE", help="where to write [%(default)s]"
    )
    parser.add_argument(
        "--charts", type=Path, default=Path("docs/bench"), metavar="FOLDER", help="where to draw [%(default)s]"
    )
    options = parser.parse_args()
    effort = _QUICK if options.quick else _FULL
    options.output.parent.mkdir(parents=True, exist_ok=True)
    begin = monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.output.parent) as folder:
        results = asyncio.run(_measure(options, effort, Path(folder).resolve()))
    write_json(results, options.output)
    turns = effort.plan.turns
    print_table(results, f"{turns.rounds} rounds of {turns.seconds} s, {os.cpu_count()} CPUs")
    print(f"{options.output} written after {monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
