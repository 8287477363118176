"""What an import did: counts, and the rows that were refused."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from cqrs.tokens import ConsistencyToken, decode_token


@dataclass
class Tally:
    """How one kind of thing fared."""

    imported: int = 0
    already_there: int = 0
    refused: int = 0

    @property
    def done(self) -> int:
        """How many were dealt with, one way or another."""
        return self.imported + self.already_there + self.refused


class Refusal(NamedTuple):
    """A row, or the customer that it names, that was not imported."""

    line: int
    """Its line in the file, from 1."""
    subject: str
    """What was refused: "row", "customer <id>" or "order <id>"."""
    reason: str
    """The server's reason, or BAD_ROW when the row could not be read."""
    message: str


NEVER_SENT = frozenset({"BAD_ROW", "CUSTOMER_REFUSED"})
"""Reasons of ours: for these rows the server was not asked."""


MOST_REFUSALS = 10_000
"""So many are kept for the summary. All of them are counted, and told as they happen."""


@dataclass
class ImportReport:
    """What an import did; grows while it runs."""

    customers: Tally = field(default_factory=Tally)
    orders: Tally = field(default_factory=Tally)
    refusals: list[Refusal] = field(default_factory=list)
    """The first MOST_REFUSALS of them."""
    never_sent: int = 0
    """Rows for which the server was not asked."""
    nanos: int = 0
    """The sum of the purchases that are in the log now, imported or there before, in billionths of a dollar."""
    retries: int = 0
    """Calls and streams that were made again because a server was away or overloaded."""
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    """How long it took."""
    _newest: tuple[int, str] = (-1, "")

    def refuse(self, tally: Tally, refusal: Refusal) -> None:
        """Count something that was not imported."""
        tally.refused += 1
        self.never_sent += refusal.reason in NEVER_SENT
        if len(self.refusals) < MOST_REFUSALS:
            self.refusals.append(refusal)

    def saw_token(self, text: str) -> ConsistencyToken:
        """Note the consistency token of an answer; the newest is what a query needs to show the whole import."""
        token = decode_token(text)
        if token.position > self._newest[0]:
            self._newest = (token.position, text)
        return token

    @property
    def consistency_token(self) -> str:
        """The newest token seen. Empty: none."""
        return self._newest[1]

    @property
    def commands_per_second(self) -> float:
        """Commands that the server answered, per second."""
        answered = self.customers.done + self.orders.done - self.never_sent
        return answered / self.seconds if self.seconds else 0.0
