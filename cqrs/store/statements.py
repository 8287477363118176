"""The statements of the write DB, of which each database has its own: `sqlite.py`, `postgresql.py`.

They are handed to the driver as they are: SQLAlchemy's per-row work would cost a fifth of the throughput.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from cqrs.records import EventRecord, LogHead
from cqrs.store.port import StoredResult
from cqrs.store.postgresql import PostgresqlStatements
from cqrs.store.sqlite import SqliteStatements


class LogStatements(Protocol):
    """What the event store asks of a database. Every method works on a connection that has its transaction."""

    def read_head(self, connection: sa.Connection) -> Sequence[Any] | None:
        """The head's columns, as LogHead has them."""
        ...

    def lock_head(self, connection: sa.Connection) -> Sequence[Any] | None:
        """The same, as the first statement of an appending transaction: from here on it is the only one."""
        ...

    def read_log(
        self, connection: sa.Connection, from_position: int, limit: int, max_bytes: int | None
    ) -> Iterator[EventRecord]:
        """Events from a position on. May give more than `max_bytes`, if only as they are asked for."""
        ...

    def read_aggregate(
        self, connection: sa.Connection, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None
    ) -> Iterator[EventRecord]:
        """Events of one aggregate from a version on; `max_bytes` as above."""
        ...

    def event_at(self, connection: sa.Connection, position: int) -> EventRecord | None:
        """The event at a position."""
        ...

    def aggregates_after(self, connection: sa.Connection, position: int) -> Iterable[str]:
        """The aggregates that have events behind a position."""
        ...

    def find_results(self, connection: sa.Connection, request_ids: Sequence[str]) -> Iterable[StoredResult]:
        """The stored outcomes of these request ids."""
        ...

    def append(
        self, connection: sa.Connection, events: Sequence[EventRecord], results: Sequence[StoredResult], head: LogHead
    ) -> None:
        """Write events and outcomes; if there are events, move the head.

        Raises:
            WriteRefused: the head was not where the events begin.
        """
        ...

    def prune_results(self, connection: sa.Connection, before: int, limit: int) -> int:
        """Delete at most `limit` outcomes recorded before `before`, the oldest first; returns how many."""
        ...


STATEMENTS: Mapping[str, LogStatements] = {"sqlite": SqliteStatements(), "postgresql": PostgresqlStatements()}
"""By the name of SQLAlchemy's dialect."""
