"""The parts of the SQL event store that load aggregates and keep snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cqrs.database.backend import Backend
from cqrs.records import EventRecord
from cqrs.snapshots.snapshot import Bound, Candidate, Outlook, Snapshot
from cqrs.store import snapshots
from cqrs.store.port import StoreError


class SqlAggregateReads:
    """What loading aggregates needs beside `read_aggregate`, in a transaction or outside one."""

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection that may read."""
        raise NotImplementedError

    def read_outlook(self, aggregate_ids: Sequence[str], fingerprints: Sequence[bytes]) -> dict[str, Outlook]:
        """See AggregateReader."""
        with self._reading() as connection:
            return snapshots.read_outlook(connection, aggregate_ids, fingerprints)

    def read_tails(self, versions: Mapping[str, range]) -> list[EventRecord]:
        """See AggregateReader."""
        with self._reading() as connection:
            return snapshots.read_tails(connection, versions)

    def read_snapshot(self, aggregate_id: str, bound: Bound, fingerprints: Sequence[bytes]) -> Candidate | None:
        """See AggregateReader."""
        with self._reading() as connection:
            return snapshots.read_snapshot(connection, aggregate_id, bound, fingerprints)


class SqlSnapshots(SqlAggregateReads):
    """SnapshotStore on an engine of its own, whose commits need not reach the disk."""

    _backend: Backend
    _side_engine: sa.Engine
    """A "write" engine with one connection. Not durable: a snapshot that a power cut loses is made again."""

    @property
    def writes_snapshots_beside_commits(self) -> bool:
        """See SnapshotStore. SQLite has one writer at a time: a second one would make commands wait for its lock."""
        return self._side_engine.dialect.name != "sqlite"

    def write_snapshots(self, new: Sequence[Snapshot], keep: int) -> None:
        """See SnapshotStore."""
        with self._beside() as connection:
            snapshots.write_snapshots(connection, new, keep)

    def drop_snapshots(self, aggregate_type: str | None, limit: int) -> int:
        """See SnapshotStore."""
        with self._beside() as connection:
            return snapshots.drop_snapshots(connection, aggregate_type, limit)

    def count_snapshots(self, aggregate_type: str | None = None) -> int:
        """See SnapshotStore."""
        with self._reading() as connection:
            return snapshots.count_snapshots(connection, aggregate_type)

    @contextmanager
    def _beside(self) -> Iterator[sa.Connection]:
        """A writing transaction beside the one that appends; committed at the end."""
        try:
            with self._side_engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise StoreError(f"the write DB failed: {self._backend.explain(error)}") from error
        except PoolTimeout as error:
            raise StoreError("the connection for snapshots is in use") from error
