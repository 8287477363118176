"""What an audit finds: a row per check."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One thing that must hold."""

    subject: str
    """What was looked at: "log", "stream", or "view <name>"."""
    rule: str
    """What must hold."""
    examined: int
    """How many events or rows were looked at."""
    problem: str = ""
    """The first place where it does not hold. Empty: it holds."""
    note: str = ""
    """What else is worth knowing."""

    @property
    def holds(self) -> bool:
        """Whether the rule holds."""
        return not self.problem


class FirstProblem:
    """Keeps the first of several problems."""

    def __init__(self) -> None:
        self.text = ""

    def found(self, text: str) -> None:
        """Note a problem, unless there is one already."""
        if not self.text:
            self.text = text
