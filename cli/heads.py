"""Heads of a log that were kept elsewhere, as an operator hands them in."""

from __future__ import annotations

from pathlib import Path

from cli.exit_codes import ExitCode
from cli.failures import CliError, NotUsable
from cqrs.head_line import MalformedHeadLine, parse_head
from cqrs.records import LogHead


def kept_heads(line: str, file: Path | None) -> list[LogHead]:
    """The heads of `line` and of the lines of `file`, by position; empty lines and those that begin with # are skipped.

    Raises:
        CliError: one is malformed.
        NotUsable: the file cannot be read, or has none.
    """
    heads = [_parse(line, "--head")] if line else []
    if file is not None:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NotUsable(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        lines = [
            (number, each)
            for number, each in enumerate(text.splitlines(), start=1)
            if each.strip() and not each.lstrip().startswith("#")
        ]
        if not lines:
            raise NotUsable(f"{file} has no line of `orderstream log head`")
        heads += [_parse(each, f"{file}, line {number}") for number, each in lines]
    return sorted(heads)


def _parse(line: str, where: str) -> LogHead:
    try:
        return parse_head(line)
    except MalformedHeadLine as error:
        raise CliError(f"{where}: {error}", exit_code=ExitCode.DATA) from error
