"""What an audit finds: a row per check."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from cli.exit_codes import ExitCode


class Result(StrEnum):
    """How a check came out."""

    OK = "OK"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    """It could not be checked, or not to the end."""


class Check(NamedTuple):
    """One thing that must hold."""

    subject: str
    """What was looked at: "log", "stream", or "view <name>"."""
    rule: str
    """What must hold."""
    examined: int
    """How many events or rows were looked at."""
    problem: str = ""
    """The first place where it does not hold. Empty: it holds, as far as it was looked at."""
    note: str = ""
    """What else is worth knowing."""
    position: int = 0
    """Log position of the problem; 0: none, or it has no position."""
    unchecked: str = ""
    """Why it could not be checked, or not to the end. Empty: it was."""

    @property
    def holds(self) -> bool:
        """Whether the rule is known to hold."""
        return self.result is Result.OK

    @property
    def result(self) -> Result:
        """A problem that was found is one, whatever could not be looked at besides."""
        if self.problem:
            return Result.FAILED
        return Result.UNKNOWN if self.unchecked else Result.OK

    def as_json(self) -> dict[str, Any]:
        """The check as `-o json` has it."""
        return {**self._asdict(), "result": self.result.value}


class FirstProblem:
    """Keeps the first of several problems."""

    def __init__(self) -> None:
        self.text = ""
        self.position = 0

    def found(self, text: str, position: int = 0) -> None:
        """Note a problem, at a log position if it has one, unless there is one already."""
        if not self.text:
            self.text, self.position = text, position


def first_position(checks: Sequence[Check]) -> Check | None:
    """Of the checks that failed at a log position, the one that failed first in the log."""
    placed = [check for check in checks if check.position]
    return min(placed, key=lambda check: check.position, default=None)


def exit_code(checks: Sequence[Check]) -> ExitCode:
    """What a command ends with that did these checks."""
    results = {check.result for check in checks}
    if Result.FAILED in results:
        return ExitCode.REFUSED
    return ExitCode.UNAVAILABLE if Result.UNKNOWN in results else ExitCode.OK
