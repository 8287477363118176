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


class _Output(Console):
    """Standard output. When whoever reads it has seen enough (`| head`), what is still to come goes nowhere."""

    def on_broken_pipe(self) -> None:
        """Rich would end the process here, with a status of its own."""
        self.quiet = True
        discard_output()


class OutputFormat(StrEnum):
    """What data looks like on stdout."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


_reader_gone = False


def discard_output() -> None:
    """Nobody reads our output any more: from now on it goes nowhere, also what Python flushes at the end."""
    global _reader_gone  # noqa: PLW0603 - there is one stdout
    _reader_gone = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def stdout() -> Console:
    """For data.

    Raises:
        BrokenPipeError: nobody reads it any more, and that was known before: who prints line by line can stop.
    """
    if _reader_gone:
        raise BrokenPipeError
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_WITHOUT_TERMINAL
    return _Output(file=sys.stdout, width=width, highlight=False, soft_wrap=False)


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
    # A command that ends with its data has a status to end with, whether or not the data are read to the end.
    try:
        if output is OutputFormat.TEXT:
            stdout().print(text())
        else:
            write_json(data, indent=2 if output is OutputFormat.JSON else None)
    except BrokenPipeError:
        discard_output()


def print_many(output: OutputFormat, data: list[Any], text: Callable[[], RenderableType]) -> None:
    """Several objects: an array with `json`, a line each with `jsonl`."""
    if output is OutputFormat.JSONL:
        try:
            for item in data:
                write_json(item)
        except BrokenPipeError:
            discard_output()
    else:
        print_one(output, data, text)


def write_json(data: Any, *, indent: int | None = None) -> None:
    """JSON and a line end, on stdout, at once.

    Raises:
        BrokenPipeError: nobody reads it any more.
    """
    sys.stdout.write(json.dumps(data, indent=indent, ensure_ascii=False) + "\n")
    sys.stdout.flush()
