"""Line charts as SVG: one file, no dependency, readable on light and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 84, 48
_COLOURS = (("#0969da", "#58a6ff"), ("#bc4c00", "#f0883e"), ("#1a7f37", "#3fb950"), ("#8250df", "#bc8cff"))
"""Of each line: on light ground, on dark ground."""


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(title: str, x_label: str, y_label: str, lines: Sequence[Line], *, log_y: bool = False) -> str:
    """An SVG document. The x axis is logarithmic, with a tick at each x that there is; all values must be positive.

    Args:
        title: stands above it.
        x_label: what x is.
        y_label: what y is, with its unit.
        lines: at most four.
        log_y: whether the y axis is logarithmic too; else it begins at 0.
    """
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points]
    across = _Scale(math.log10(xs[0]), math.log10(xs[-1]), _LEFT + 24, _WIDTH - _RIGHT - 24)
    ticks = _log_ticks(min(ys), max(ys)) if log_y else _linear_ticks(max(ys))
    bottom, top = (math.log10(ticks[0]), math.log10(ticks[-1])) if log_y else (ticks[0], ticks[-1])
    up = _Scale(bottom, top, _HEIGHT - _BOTTOM, _TOP)

    def y_of(value: float) -> float:
        return up(math.log10(value) if log_y else value)

    parts = [_text(_LEFT, 20, title, "start", "title"), _text(_LEFT - 56, _TOP - 14, y_label, "start")]
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y_of(tick):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 8, y_of(tick) + 4, f"{tick:,g}", "end"))
    parts += [_text(across(math.log10(x)), _HEIGHT - _BOTTOM + 18, f"{x:,.0f}") for x in xs]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_label))
    for number, line in enumerate(lines):
        places = [(across(math.log10(x)), y_of(y)) for x, y in line.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line c{number}" d="M{path}"/>')
        parts += [f'<circle class="dot c{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
        parts.append(f'<path class="line c{number}" d="M{_LEFT + 190 * number} 38h18"/>')
        parts.append(_text(_LEFT + 190 * number + 24, 42, line.name, "start"))
    return _document(title, parts)


class _Scale:
    """Maps a range of values to a range of places."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self._low, self._first = low, first
        self._factor = (last - first) / (high - low) if high > low else 0.0

    def __call__(self, value: float) -> float:
        return self._first + (value - self._low) * self._factor


def _linear_ticks(highest: float) -> list[float]:
    """0 and up to five round numbers, the last of them not below `highest`."""
    power = 10 ** math.floor(math.log10(highest))
    step = next(step for step in (0.2 * power, 0.5 * power, power, 2 * power) if highest <= 5 * step)
    return [step * number for number in range(math.ceil(highest / step) + 1)]


def _log_ticks(lowest: float, highest: float) -> list[float]:
    """The powers of ten from at most `lowest` to at least `highest`."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _text(x: float, y: float, text: str, anchor: str = "middle", style: str = "label") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(title: str, parts: Sequence[str]) -> str:
    light = "".join(f".c{n}{{stroke:{light};fill:{light}}}" for n, (light, _) in enumerate(_COLOURS))
    dark = "".join(f".c{n}{{stroke:{dark};fill:{dark}}}" for n, (_, dark) in enumerate(_COLOURS))
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:14px;font-weight:600}"
        f".grid{{stroke:#8c959f;stroke-opacity:.35;fill:none}}{light}.line{{fill:none;stroke-width:2}}"
        f"@media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}{dark}.line{{fill:none}}}}"
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">\n<style>{style}</style>\n{body}\n</svg>\n'
    )
