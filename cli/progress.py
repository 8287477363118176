"""Progress of long work on stderr: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cli import console

_LINE_SECONDS = 5.0
"""Between two lines when stderr is no terminal."""


class ProgressDisplay(Protocol):
    """What tells how far the work has got."""

    def expect(self, total: int) -> None:
        """So many there are in all. To be called before the first `advance`."""
        ...

    def advance(self, count: int = 1) -> None:
        """So many more are done with."""
        ...

    def say(self, text: str) -> None:
        """A line of text, which the bar does not overwrite."""
        ...


@contextmanager
def progress(title: str, unit: str) -> Iterator[ProgressDisplay]:
    """Show progress through things that are called `unit`."""
    if not console.stderr().is_terminal:
        lines = _Lines(title, unit)
        yield lines
        lines.close()
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TextColumn("ETA"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console.stderr(),
        refresh_per_second=8,
    ) as bar:
        yield _Bar(bar, title)


class _Bar:
    def __init__(self, bar: Progress, title: str) -> None:
        self._bar = bar
        self._task = bar.add_task(escape(title), total=None)

    def expect(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def advance(self, count: int = 1) -> None:
        self._bar.advance(self._task, count)

    def say(self, text: str) -> None:
        self._bar.console.print(f"[yellow]{escape(text)}[/yellow]")


class _Lines:
    def __init__(self, title: str, unit: str) -> None:
        self._title = title
        self._total = 0
        self._unit = unit
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def expect(self, total: int) -> None:
        self._total = total
        self._started = self._last_line = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            self._write(now)

    def say(self, text: str) -> None:
        console.warn(text)

    def close(self) -> None:
        self._write(time.monotonic())

    def _write(self, now: float) -> None:
        rate = self._done / max(now - self._started, 0.001)
        left = (self._total - self._done) / rate if rate else 0.0
        eta = f", about {left:.0f} s left" if self._done < self._total and rate else ""
        console.note(f"{self._title}: {self._done:,} of {self._total:,} {self._unit}, {rate:,.0f} a second{eta}")


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else f"- {self._unit}/s", style="dim")
