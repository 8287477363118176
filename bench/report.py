"""The results: a table for people, a flat JSON object for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.pairs import Pair


@dataclass
class Results:
    """What a run of the bench has found."""

    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    """By the name of the call; a pair for each number in flight."""
    others: dict[str, float] = field(default_factory=dict)
    """Figures of what is no call."""

    def add(self, name: str, pair: Pair) -> None:
        """A call was measured beside the echo."""
        self.pairs.setdefault(name, []).append(pair)

    @property
    def figures(self) -> dict[str, float]:
        """Everything by its name."""
        of_pairs = {
            figure: value
            for name, pairs in self.pairs.items()
            for pair in pairs
            for figure, value in pair.figures(name).items()
        }
        return of_pairs | self.others


def write_json(results: Results, file: Path) -> None:
    """One flat object of names to numbers."""
    file.write_text(json.dumps({name: round(value, 4) for name, value in results.figures.items()}, indent=2) + "\n")


def print_table(results: Results, title: str) -> None:
    """A row for each call and number in flight, the echo beside it; below it what is no call."""
    console = Console(width=160)
    if results.pairs:
        console.print(_table(results.pairs, title))
    figures = results.figures
    derived = {name: value for name, value in figures.items() if name.endswith("commit_ms")}
    for name, value in (derived | results.others).items():
        console.print(f"{name}: {value:,.2f}", highlight=False)


def _table(pairs: dict[str, list[Pair]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("call", no_wrap=True)
    for heading in ("in flight", "calls/s", "p50 ms", "p99 ms", "echo calls/s", "echo p50", "ratio to echo"):
        table.add_column(heading, justify="right", no_wrap=True)
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
                f"{figures[f'{echo}.p50_ms']:.2f}",
                f"{figures[f'{prefix}.ratio_to_echo']:.2f}",
            )
    return table
