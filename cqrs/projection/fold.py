"""A projection without a database: the rows that the log says there must be.

For auditing (`orderstream verify` compares a fold of the log with the tables) and for looking at the past:

    with engine.connect() as connection:                       # one snapshot of the read DB
        at = read_checkpoint(connection, projection.name)
        found = read_rows(connection, projection, at.generation)
    expected = fold(projection, (event for event in log if event.position <= at.position))
    assert found == expected                                   # table name -> key -> row
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from cqrs.projection.projection import CannotApply, Projection, decode
from cqrs.projection.rows import RowSet
from cqrs.projection.view import Key
from cqrs.records import EventRecord

Tables = dict[str, dict[Key, tuple[Any, ...]]]
"""Rows by key by table name. Rows and keys are as in the tables, column for column, without the generation."""


class Fold:
    """A read model in memory, to which events are applied one by one."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._rows = RowSet()
        self.position = 0
        """Position of the last event applied."""

    def apply(self, record: EventRecord) -> None:
        """Apply the next event.

        Raises:
            CannotApply: it cannot be; the message says which event, and why. The fold is of no use any more.
        """
        try:
            event = decode(self._projection, record)
            if event is not None:
                self._projection.apply(event, self._rows)
        except Exception as error:
            raise CannotApply(f"{describe(record)}: {error}") from error
        self.position = record.position

    def tables(self) -> Tables:
        """The rows as they are now. Every table of the projection is there, also an empty one."""
        return {view.name: self._rows.contents(view) for view in self._projection.views}


def fold(projection: Projection, events: Iterable[EventRecord]) -> Tables:
    """The projection's rows after these events: the log's, in order, from position 1.

    Raises:
        CannotApply: an event cannot be applied.
    """
    state = Fold(projection)
    for event in events:
        state.apply(event)
    return state.tables()


def read_rows(connection: sa.Connection, projection: Projection, generation: int) -> Tables:
    """The projection's rows in the read DB, in the form that `fold` gives."""
    return {
        view.name: {row[: view.key_length]: row for row in view.load_all(connection, generation)}
        for view in projection.views
    }


def describe(record: EventRecord) -> str:
    """The event in a few words, for messages."""
    return (
        f"event {record.position} ({record.event_type} of {record.aggregate_type} {record.aggregate_id}, "
        f"version {record.version})"
    )
