"""Write DBs with a log in them, and what somebody does to one behind the triggers' back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa

from cqrs.database.engine import open_engine
from cqrs.records import GENESIS_HASH, EventRecord, LogHead, chain_hash
from cqrs.store.epochs import LogEpoch, begin_epoch
from cqrs.store.schema import events, log_head
from tests.integration.logs import events_after, head_of, new_write_db
from tests.integration.postgresql import Databases, text_of

AGGREGATES = [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("a", 3), ("b", 2), ("a", 4), ("c", 2)]
"""Eight events of three aggregates."""


class StoredLog:
    """A write DB."""

    def __init__(self, url: str) -> None:
        self.url = url

    def append(self, aggregates: Sequence[tuple[str, int]], data: bytes = b"x") -> list[EventRecord]:
        """Append one event for each (aggregate id, version)."""
        engine = open_engine(self.url, access="write")
        try:
            with engine.begin() as connection:
                new = events_after(_head(connection), aggregates, data)
                _insert(connection, new)
            return new
        finally:
            engine.dispose()

    def head(self) -> LogHead:
        engine = open_engine(self.url, access="read")
        try:
            with engine.connect() as connection:
                return _head(connection)
        finally:
            engine.dispose()

    def fork(self, position: int | None = None) -> LogEpoch:
        """Begin a new epoch."""
        engine = open_engine(self.url, access="write")
        try:
            with engine.begin() as connection:
                return begin_epoch(connection, position)
        finally:
            engine.dispose()

    def tamper(self, *statements: str) -> None:
        """Run statements after the triggers that keep events append-only have been taken away."""

        def work(connection: sa.Connection) -> None:
            for statement in statements:
                connection.exec_driver_sql(statement)

        self.behind_the_triggers(work)

    def set_back(self, position: int) -> None:
        """What a database service does that goes back to an older point: it says nothing of an epoch."""
        self.tamper(
            f"DELETE FROM events WHERE position > {position}",
            "UPDATE log_head SET (position, hash, record_time) = "
            f"(SELECT position, hash, record_time FROM events WHERE position = {position})",
        )

    def rewrite(self, change: Callable[[EventRecord], EventRecord]) -> None:
        """Change events, and compute all hashes anew, the head's too: the log is right in itself."""

        def work(connection: sa.Connection) -> None:
            previous, rewritten = GENESIS_HASH, []
            for row in connection.execute(sa.select(events).order_by(events.c.position)):
                event = change(EventRecord._make(row))
                previous = chain_hash(previous, event)
                rewritten.append(event._replace(hash=previous))
            connection.execute(events.delete())
            _insert(connection, rewritten)

        self.behind_the_triggers(work)

    def behind_the_triggers(self, work: Callable[[sa.Connection], None]) -> None:
        engine = open_engine(self.url, access="write")
        try:
            with engine.begin() as connection:
                for name in sa.inspect(connection).get_table_names():
                    if connection.dialect.name == "postgresql":
                        connection.exec_driver_sql(f'ALTER TABLE "{name}" DISABLE TRIGGER USER')
                if connection.dialect.name == "sqlite":
                    names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").all()
                    for (trigger,) in names:
                        connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
                work(connection)
        finally:
            engine.dispose()


def sqlite_log(folder: Path, aggregates: Sequence[tuple[str, int]] = AGGREGATES) -> StoredLog:
    log = StoredLog(new_write_db(folder))
    log.append(aggregates)
    return log


def postgresql_log(databases: Databases, aggregates: Sequence[tuple[str, int]] = AGGREGATES) -> StoredLog:
    log = StoredLog(text_of(databases.with_schema()))
    log.append(aggregates)
    return log


def _head(connection: sa.Connection) -> LogHead:
    c = log_head.c
    return LogHead._make(connection.execute(sa.select(c.position, c.hash, c.epoch, c.record_time)).one())


def _insert(connection: sa.Connection, new: Sequence[EventRecord]) -> None:
    connection.execute(events.insert(), [event._asdict() for event in new])
    head = head_of(new, "")
    connection.execute(log_head.update().values(position=head.position, hash=head.hash, record_time=head.record_time))
