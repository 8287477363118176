"""What a comparison of the log with what is made from it has found."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple


class Standing(StrEnum):
    """How something that is made from the log stands to it."""

    SAME = "same"
    """It is a beginning of the log."""
    MISSING = "missing"
    """It is not there. Whoever makes it will."""
    LEFT = "left branch"
    """It is of an earlier epoch of this log, as after a restore."""
    LOST = "lost events"
    """It is of the log's present epoch and has events that the log does not have: the log was set back."""
    UNUSABLE = "unusable"
    """It is of this history, but not as it must be."""
    FOREIGN = "another log"
    """It is of a history that this log never was."""


class Finding(NamedTuple):
    """One thing that is made from the log."""

    subject: str
    """What was looked at, such as "stream ORDERSTREAM"."""
    standing: Standing
    text: str
    """What there is, and what differs."""
    position: int = 0
    """Where it is; 0: it is empty."""
    shared: int | None = None
    """The last position up to which it is known to be the log; None: nothing is known."""
    exact: bool = False
    """`shared` is the last one: behind it, they differ."""
    epoch: str = ""

    @property
    def differs(self) -> bool:
        """Whether it must be made anew."""
        return self.standing not in (Standing.SAME, Standing.MISSING)

    def as_json(self) -> dict[str, Any]:
        """The finding as `-o json` has it."""
        return {
            "subject": self.subject,
            "standing": self.standing.value,
            "text": self.text,
            "position": self.position,
            "shared_position": self.shared,
            "epoch": self.epoch,
        }


def those(findings: Sequence[Finding], standing: Standing) -> list[Finding]:
    """The findings of one standing."""
    return [finding for finding in findings if finding.standing is standing]
