"""Audits a projection's tables against a fresh fold of the log, row by row. Invariant 7."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from cli.auditing.checks import Check, FirstProblem
from cqrs.projection.checkpoint import Checkpoint, read_checkpoint
from cqrs.projection.fold import Fold, Tables, read_rows
from cqrs.projection.projection import CannotApply, Projection
from cqrs.projection.tables import projections
from cqrs.records import EventRecord, LogHead

_POLL_SECONDS = 0.1


async def wait_for_projections(engine: sa.Engine, names: Sequence[str], position: int, seconds: float) -> None:
    """Return once every projection has got to `position`, or `seconds` have passed."""

    def behind() -> bool:
        with engine.connect() as connection:
            checkpoints = [read_checkpoint(connection, name) for name in names]
        return any(checkpoint is None or checkpoint.position < position for checkpoint in checkpoints)

    give_up = time.monotonic() + seconds
    while await asyncio.to_thread(behind) and time.monotonic() < give_up:  # noqa: ASYNC110 - other processes write it
        await asyncio.sleep(_POLL_SECONDS)


class ViewAudit:
    """One projection: its rows in one snapshot of the read DB, and the fold of the log up to their checkpoint."""

    def __init__(self, connection: sa.Connection, projection: Projection, head: LogHead) -> None:
        """Read the projection's checkpoint and rows; `connection` is in the transaction that is the snapshot."""
        self._name = projection.name
        self._head = head
        self._problem = FirstProblem()
        self._checkpoint = read_checkpoint(connection, projection.name)
        self._found: Tables = {view.name: {} for view in projection.views}
        self._fold = Fold(projection)
        self._folding = True
        self._tables = [view.name for view in projection.views]
        self._columns = {view.name: view.columns for view in projection.views}
        if self._checkpoint is None:
            self._folding = False
            return
        self._found = read_rows(connection, projection, self._checkpoint.generation)
        version = connection.execute(
            sa.select(projections.c.code_version).where(projections.c.name == projection.name)
        ).scalar_one()
        if version != projection.code_version:
            self._problem.found(
                f"its rows were made by version {version} of its code, this is {projection.code_version}"
            )

    @property
    def position(self) -> int:
        """The log position up to which the rows show the log."""
        return self._checkpoint.position if self._checkpoint else 0

    def feed(self, records: Sequence[EventRecord]) -> None:
        """The next events of the log."""
        if not self._folding:
            return
        for record in records:
            if record.position > self.position:
                break
            try:
                self._fold.apply(record)
            except CannotApply as error:
                self._problem.found(str(error))
                self._folding = False
                return
            if record.position == self.position:
                self._check_checkpoint(record)

    def checks(self, *, running: bool) -> list[Check]:
        """What was found. While nothing runs, the rows may lack the log's end."""
        note = f"position {self.position:,}"
        if self._checkpoint is None and (running or self._head.position):
            self._problem.found("the projection has never run on this read DB")
        if self.position < self._head.position:
            missing = f"{self._head.position - self.position:,} events of the log are not in it"
            if running:
                self._problem.found(f"{missing} yet")
            else:
                note += f"; {missing}: the projector goes on when the system runs"
        if self._fold.position < self.position:
            self._problem.found(f"its checkpoint {self.position} is behind the log's end")
        checks = [Check(f"view {self._name}", "its checkpoint is a point of the log", 1, self._problem.text, note)]
        if self._folding:
            expected = self._fold.tables()
            checks += [self._compare(table, expected[table], self._found[table]) for table in self._tables]
        return checks

    def _check_checkpoint(self, record: EventRecord) -> None:
        checkpoint: Checkpoint | None = self._checkpoint
        if checkpoint is None:
            return
        if checkpoint.hash != record.hash:
            self._problem.found(f"the hash at its checkpoint {checkpoint.position} is not the log's")
        if checkpoint.epoch != self._head.epoch:
            self._problem.found(f"it is of epoch {checkpoint.epoch}, the log of epoch {self._head.epoch}")

    def _compare(self, table: str, expected: dict[Any, tuple[Any, ...]], found: dict[Any, tuple[Any, ...]]) -> Check:
        problem = first_difference(self._columns[table], expected, found)
        return Check(f"view {self._name}", f"table {table} equals a fresh fold of the log", len(expected), problem)


def first_difference(
    columns: Sequence[str], expected: dict[Any, tuple[Any, ...]], found: dict[Any, tuple[Any, ...]]
) -> str:
    """The first row, by key, that is missing, too many, or has a wrong value; empty if there is none."""
    differing = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    if not differing:
        return ""
    key = min(differing)
    name = " ".join(map(str, key)) or "(the only one)"
    more = f" ({len(differing):,} rows differ)" if len(differing) > 1 else ""
    if key not in found:
        return f"row {name} is missing{more}"
    if key not in expected:
        return f"row {name} should not be there{more}"
    for column, right, wrong in zip(columns, expected[key], found[key], strict=True):
        if right != wrong:
            return f"row {name}, column {column}: {_short(wrong)} instead of {_short(right)}{more}"
    return f"row {name} differs{more}"


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
