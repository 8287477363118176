"""Asks before something is done that cannot be undone."""

from __future__ import annotations

import sys

import typer

from cli.failures import CliError


def consent(question: str, *, yes: bool) -> None:
    """Return if it may be done: `yes` says so, or whoever sits at the terminal.

    Raises:
        CliError: it may not, or there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(
            "nothing was changed: stdin is no terminal, so nobody can be asked",
            hint="look at the above, then add --yes",
        )
    if not typer.confirm(question, err=True):
        raise CliError("nothing was changed")
