"""Where output goes: data on stdout, everything else on stderr; and the formats of `-o`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, RenderableType
from rich.markup import escape

if TYPE_CHECKING:
    from google.protobuf.message import Message

_WIDTH_WITHOUT_TERMINAL = 120
"""Columns, when stdout is no terminal and COLUMNS is not set."""

ItemT = TypeVar("ItemT")


class OutputFormat(StrEnum):
    """What data looks like on stdout."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


def stdout() -> Console:
    """For data."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_WITHOUT_TERMINAL
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False)


def stderr() -> Console:
    """For everything that is not data: progress, notes, warnings, errors."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A line on stderr."""
    stderr().print(escape(text))


def warn(text: str) -> None:
    """A line on stderr that asks for attention."""
    stderr().print(f"[yellow]{escape(text)}[/yellow]")


def fail(message: str, *, reason: str = "", details: Iterable[tuple[str, str]] = (), hint: str = "") -> None:
    """An error on stderr: what happened, what it is about, what to do."""
    console = stderr()
    label = f"error ({reason}):" if reason else "error:"
    console.print(f"[bold red]{escape(label)}[/bold red] {escape(message)}")
    for subject, text in details:
        console.print(f"  {escape(subject)}: {escape(text)}")
    if hint:
        console.print(f"[cyan]hint:[/cyan] {escape(hint)}")


def to_json(message: Message) -> dict[str, Any]:
    """A message as JSON, with the contract's field names; fields that are not set are left out."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True)


def print_one(output: OutputFormat, data: Any, text: Callable[[], RenderableType]) -> None:
    """One object. `data` is what JSON can hold, `text` what people read."""
    if output is OutputFormat.TEXT:
        stdout().print(text())
    else:
        write_json(data, indent=2 if output is OutputFormat.JSON else None)


def print_many(output: OutputFormat, data: list[Any], text: Callable[[], RenderableType]) -> None:
    """Several objects: an array with `json`, a line each with `jsonl`."""
    if output is OutputFormat.JSONL:
        for item in data:
            write_json(item)
    else:
        print_one(output, data, text)


def write_json(data: Any, *, indent: int | None = None) -> None:
    """JSON and a line end, on stdout, at once."""
    sys.stdout.write(json.dumps(data, indent=indent, ensure_ascii=False) + "\n")
    sys.stdout.flush()
