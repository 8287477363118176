"""The event store on SQLAlchemy Core, for SQLite and PostgreSQL.

Invariant 2: the first statement of an appending transaction locks the head row (on SQLite BEGIN IMMEDIATE locks the
database), so positions are given in commit order and without a gap. The statements are each database's own
(`statements.py`); here are connections, transactions, and what the driver's errors mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cqrs import failpoints
from cqrs.database.engine import backend_of, open_engine, shown
from cqrs.database.migrations import check_schema
from cqrs.errors import ConfigurationError
from cqrs.records import EventRecord, LogHead
from cqrs.store.port import CommitUncertain, StoredResult, StoreError, WriteRefused, within_bytes
from cqrs.store.schema import WRITE_SCHEMA, log_head
from cqrs.store.sql_queries import SqlQueries
from cqrs.store.sql_snapshots import SqlAggregateReads, SqlSnapshots
from cqrs.store.statements import STATEMENTS, LogStatements


class SqlEventStore(SqlQueries, SqlSnapshots):
    """The write DB."""

    def __init__(self, url: str, *, readers: int = 4, application_name: str = "orderstream") -> None:
        """Open the write DB at `url`.

        Args:
            url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`.
            readers: reading connections, at most.
            application_name: what the database's operator sees, where there is such a thing.

        Raises:
            SchemaMismatch: the schema is not that of this code.
            ConfigurationError: the database cannot be reached, or the URL or the SQLite library will not do.
        """
        self._write_engine = open_engine(url, access="write", durable=True, application_name=application_name)
        self._read_engine = open_engine(url, access="read", connections=readers, application_name=application_name)
        self._side_engine = open_engine(url, access="write", application_name=application_name)
        self._backend = backend_of(url)
        self._statements: LogStatements = STATEMENTS[self._write_engine.dialect.name]
        self._writer: sa.Connection | None = None
        try:
            check_schema(self._read_engine, WRITE_SCHEMA)
        except DBAPIError as error:
            self.close()
            raise ConfigurationError(
                f"the write DB {shown(url)} cannot be opened: {self._backend.explain(error)}"
            ) from error
        except BaseException:
            self.close()
            raise

    def read_head(self) -> LogHead:
        """See EventReader."""
        with self._reading() as connection:
            return _head(self._statements.read_head(connection))

    def read_log(self, from_position: int, limit: int, max_bytes: int | None = None) -> list[EventRecord]:
        """See EventReader."""
        with self._reading() as connection:
            return within_bytes(self._statements.read_log(connection, from_position, limit, max_bytes), max_bytes)

    def read_aggregate(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None = None
    ) -> list[EventRecord]:
        """See AggregateReader."""
        with self._reading() as connection:
            found = self._statements.read_aggregate(connection, aggregate_id, from_version, limit, max_bytes)
            return within_bytes(found, max_bytes)

    @contextmanager
    def begin_append(self) -> Iterator[_SqlTransaction]:
        """See EventStore."""
        try:
            if self._writer is None:
                self._writer = self._write_engine.connect()
            transaction = self._writer.begin()
            try:
                yield _SqlTransaction(self._writer, transaction, self._statements)
            finally:
                if transaction.is_active:
                    transaction.rollback()
        except (IntegrityError, DataError) as error:
            self._drop_writer()
            raise WriteRefused(f"the write DB refused: {self._backend.explain(error)}") from error
        except DBAPIError as error:
            self._reconnect()
            raise StoreError(f"the write DB failed: {self._backend.explain(error)}") from error
        except (CommitUncertain, StoreError):
            self._reconnect()
            raise

    def prune_results(self, before: int, limit: int) -> int:
        """See EventStore."""
        try:
            with self._beside() as connection:
                pruned = self._statements.prune_results(connection, before, limit)
                failpoints.reach("store.before_prune_commit")
                return pruned
        except failpoints.Triggered as error:
            raise StoreError("pruning failed, as a failpoint asked for") from error

    def close(self) -> None:
        """See EventStore."""
        self._drop_writer()
        self._write_engine.dispose()
        self._read_engine.dispose()
        self._side_engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._read_engine.connect() as connection:
                yield connection
        except (IntegrityError, DataError) as error:
            raise WriteRefused(f"the write DB refused: {self._backend.explain(error)}") from error
        except DBAPIError as error:
            raise StoreError(f"the write DB failed: {self._backend.explain(error)}") from error
        except PoolTimeout as error:
            raise StoreError("all reading connections of the write DB are in use") from error

    def _reconnect(self) -> None:
        """Use no present connection any more: after a fail-over, readers must not stay with the server that was."""
        self._drop_writer()
        self._read_engine.dispose()

    def _drop_writer(self) -> None:
        """Close the appending connection for good: after a failure its state is unknown."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.invalidate()
            writer.close()


class _SqlTransaction(SqlAggregateReads):
    def __init__(self, connection: sa.Connection, transaction: sa.RootTransaction, statements: LogStatements) -> None:
        self._connection = connection
        self._transaction = transaction
        self._statements = statements
        self.head = _head(statements.lock_head(connection))

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        yield self._connection

    def find_results(self, request_ids: Sequence[str]) -> dict[str, StoredResult]:
        return {result.request_id: result for result in self._statements.find_results(self._connection, request_ids)}

    def read_aggregate(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int | None = None
    ) -> list[EventRecord]:
        found = self._statements.read_aggregate(self._connection, aggregate_id, from_version, limit, max_bytes)
        return within_bytes(found, max_bytes)

    def event_at(self, position: int) -> EventRecord | None:
        return self._statements.event_at(self._connection, position)

    def aggregates_after(self, position: int) -> Iterable[str]:
        return self._statements.aggregates_after(self._connection, position)

    def append(self, new_events: Sequence[EventRecord], results: Sequence[StoredResult], head: LogHead) -> None:
        self._statements.append(self._connection, new_events, results, head)

    def commit(self) -> None:
        try:
            failpoints.reach("store.before_commit")
            self._transaction.commit()
            failpoints.reach("store.after_commit")
        except (DBAPIError, failpoints.Triggered) as error:
            raise CommitUncertain("COMMIT failed; whether it took effect is not known") from error


def _head(row: Sequence[object] | None) -> LogHead:
    if row is None:
        raise StoreError(f"the write DB has no row in {log_head.name}: restore it from a backup")
    return LogHead._make(row)
