"""Checks for people: a table, and a line that sums up."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from cli import console
from cli.auditing.checks import Check, Result, first_position
from cli.wording import counted

_STYLES = {Result.OK: "green", Result.FAILED: "bold red", Result.UNKNOWN: "yellow"}


def checks_table(checks: Sequence[Check]) -> Table:
    """A row for each check."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "what", "rule"):
        table.add_column(column)
    table.add_column("count", justify="right")
    table.add_column("", overflow="fold")
    for check in checks:
        table.add_row(
            Text(check.result.value, style=_STYLES[check.result]),
            check.subject,
            check.rule,
            f"{check.examined:,}",
            _remark(check),
        )
    return table


def tell_outcome(checks: Sequence[Check]) -> None:
    """On stderr: how many hold, and where the log is first wrong."""
    first = first_position(checks)
    if first is not None:
        console.warn(f"the first bad position is {first.position:,}: {first.problem}")
    failed = sum(check.result is Result.FAILED for check in checks)
    unknown = sum(check.result is Result.UNKNOWN for check in checks)
    if failed:
        console.warn(f"{failed} of {counted(len(checks), 'check')} failed")
    if unknown:
        console.warn(f"{unknown} of {counted(len(checks), 'check')} could not be done, or not to the end")
    if not failed and not unknown:
        console.note(f"all {counted(len(checks), 'check')} hold")


def _remark(check: Check) -> Text:
    match check.result:
        case Result.FAILED:
            return Text(check.problem, style="red")
        case Result.UNKNOWN:
            return Text(f"could not be checked: {check.unchecked}", style="yellow")
        case _:
            return Text(check.note, style="dim")
