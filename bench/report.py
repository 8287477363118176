"""The results: a table for people, a flat JSON object for programs."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.scenarios import Pair


def write_json(figures: dict[str, float], file: Path) -> None:
    """One flat object of names to numbers."""
    file.write_text(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2) + "\n")


def print_table(pairs: dict[str, list[Pair]], others: dict[str, float], title: str) -> None:
    """A row for each call and number in flight, the echo beside it; below it what is no call."""
    table = Table(title=title, title_justify="left")
    table.add_column("call", no_wrap=True)
    for heading in ("in flight", "calls/s", "p50 ms", "p99 ms", "echo calls/s", "ratio to echo"):
        table.add_column(heading, justify="right")
    for name, measured in pairs.items():
        for pair in measured:
            figures = pair.figures(name)
            prefix, echo = f"{name}.c{pair.in_flight}", f"{name}.echo.c{pair.in_flight}"
            table.add_row(
                name,
                str(pair.in_flight),
                f"{figures[f'{prefix}.calls_per_second']:,.0f}",
                f"{figures[f'{prefix}.p50_ms']:.2f}",
                f"{figures[f'{prefix}.p99_ms']:.2f}",
                f"{figures[f'{echo}.calls_per_second']:,.0f}",
                f"{figures[f'{prefix}.ratio_to_echo']:.2f}",
            )
    console = Console(width=110)
    console.print(table)
    for name, value in others.items():
        console.print(f"{name}: {value:,.2f}", highlight=False)
