"""Reading the read DB: a few threads, a bounded queue before them, one snapshot a read."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from cqrs.database.engine import database_file, open_engine
from cqrs.database.migrations import Schema, check_schema
from cqrs.errors import Overloaded, SchemaMismatch, StoreUnavailable
from cqrs.projection.tables import checkpoints, projections
from cqrs.serving.logging import get_logger

T = TypeVar("T")

_BUSY_TIMEOUT_SECONDS = 1.0
"""Readers of a WAL wait for nobody; all they can meet is another process's exclusive lock, soon over or not."""

_RETRY_OPEN_SECONDS = 0.5
"""A DB that could not be opened is tried again after this; until then reads are refused without touching the disk."""

_log = get_logger(__name__)


class Snapshot(NamedTuple):
    """Which state of a projection a read has seen."""

    source: int
    """Counts how often the DB was opened anew: another number may be another DB."""
    generation: int
    """The generation that was served; 0 if the projection has never run."""
    epoch: str
    """The log's epoch, a UUID; empty until the projection has applied an event."""
    position: int
    """The last log position whose effect the rows show."""
    record_time: int
    """Record time of that position, microseconds since 1970; 0 at position 0."""


class ReadDatabase:
    """The read DB as the query server sees it: read only, and possibly not there.

    A DB file that is missing, locked or of another schema makes reads fail with StoreUnavailable; once it is in order
    they succeed again. A file that was replaced is noticed before the next read (an open connection would go on to
    read the file that was deleted).
    """

    def __init__(self, url: str, schema: Schema, *, threads: int, max_queue: int) -> None:
        """Opens nothing yet.

        Args:
            url: `sqlite:///FILE`. The file is never created.
            schema: what its schema must be.
            threads: how many reads run at a time.
            max_queue: how many more may wait for a thread.

        Raises:
            ConfigurationError: the URL is of an unsupported database.
        """
        self._file: Path = database_file(url).absolute()
        self._schema = schema
        self._engine = open_engine(
            f"sqlite:///{self._file.as_uri()}?mode=rw&uri=true",
            access="read",
            connections=threads,
            busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS,
        )
        sa.event.listen(self._engine, "connect", _forbid_writes)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="read-db")
        self._most = threads + max_queue
        self.pending = 0
        """Reads that run or wait for a thread."""
        self.reads = 0
        """Reads that have ended, well or not."""
        self.read_seconds = 0.0
        """What they took together, waiting for a thread included."""
        self._opening = threading.Lock()
        self._identity: tuple[int, int] | None = None
        self._source = 0
        self._open_again_at = 0.0
        self._explained = ""

    def check(self) -> None:
        """Make sure that the DB is there and of the right schema. Blocks; for the process's start.

        Raises:
            SchemaMismatch: it is missing, or of another schema. The message has the command that mends it.
            StoreUnavailable: it is there and cannot be read now; that may pass.
        """
        if not self._file.exists():
            raise SchemaMismatch(f"the {self._schema.name} ({self._file}) does not exist: run `orderstream db upgrade`")
        try:
            check_schema(self._engine, self._schema)
        except sa.exc.SQLAlchemyError as error:
            raise StoreUnavailable(f"the {self._schema.name} cannot be read: {_cause(error)}") from error

    async def read(self, projection: str, work: Callable[[sa.Connection, int], T]) -> tuple[Snapshot, T]:
        """Run `work(connection, generation)` on a thread and return its result, with the snapshot that it saw.

        Raises:
            Overloaded: too many reads wait; nothing was done.
            StoreUnavailable: the DB cannot be read.
        """
        if self.pending >= self._most:
            raise Overloaded(f"{self.pending} reads of the read DB are waiting: retry")
        self.pending += 1
        try:
            return await self._submit(lambda: self._read(projection, work))
        finally:
            self.pending -= 1

    async def snapshots(self, names: Sequence[str]) -> dict[str, Snapshot]:
        """Where these projections stand, read in one snapshot. Not bounded, nor counted: there is one poller.

        Raises:
            StoreUnavailable: the DB cannot be read.
        """
        return await self._submit(lambda: self._snapshots(names))

    def close(self) -> None:
        """Wait for the reads that run, then close."""
        self._executor.shutdown(cancel_futures=True)
        self._engine.dispose()

    async def _submit(self, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        finally:
            self.reads += 1
            self.read_seconds += time.perf_counter() - started

    def _read(self, projection: str, work: Callable[[sa.Connection, int], T]) -> tuple[Snapshot, T]:
        source = self._open()
        try:
            with self._engine.connect() as connection:
                snapshot = _snapshot(connection, source, projection)
                return snapshot, work(connection, snapshot.generation)
        except sa.exc.SQLAlchemyError as error:
            raise self._broken(error) from error

    def _snapshots(self, names: Sequence[str]) -> dict[str, Snapshot]:
        source = self._open()
        try:
            with self._engine.connect() as connection:
                found = {name: _snapshot(connection, source, name) for name in names}
        except sa.exc.SQLAlchemyError as error:
            raise self._broken(error) from error
        self._explained = ""
        return found

    def _open(self) -> int:
        """Make sure that the connections are to the file that is there now; returns the source's number."""
        identity = self._file_identity()
        if identity is not None and identity == self._identity:
            return self._source
        with self._opening:
            if time.monotonic() < self._open_again_at:
                raise self._unavailable()
            identity = self._file_identity()
            if identity is not None and identity == self._identity:
                return self._source
            self._engine.dispose()
            self._identity = None
            try:
                self.check()
            except (SchemaMismatch, StoreUnavailable) as error:
                self._open_again_at = time.monotonic() + _RETRY_OPEN_SECONDS
                self._explain(str(error))
                raise self._unavailable() from error
            self._identity = identity
            self._source += 1
            return self._source

    def _file_identity(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _broken(self, error: sa.exc.SQLAlchemyError) -> StoreUnavailable:
        """Translate, and begin afresh with the next read: whatever is wrong, old connections are no help."""
        with self._opening:
            self._identity = None
            self._explain(_cause(error))
        return self._unavailable()

    def _unavailable(self) -> StoreUnavailable:
        """What clients are told. Where the DB is and what ails it is for the operator: see `_explain`."""
        return StoreUnavailable(f"the {self._schema.name} cannot be read: retry")

    def _explain(self, why: str) -> None:
        """Tell the log; the same thing again only after a poll that went well, however many reads fail."""
        if why != self._explained:
            self._explained = why
            _log.warning(f"the {self._schema.name} cannot be read", error=why)


_WHERE_IS = (
    sa.select(
        projections.c.serving_generation,
        checkpoints.c.epoch,
        checkpoints.c.position,
        checkpoints.c.record_time,
    )
    .join_from(
        projections,
        checkpoints,
        sa.and_(
            checkpoints.c.projection == projections.c.name,
            checkpoints.c.generation == projections.c.serving_generation,
        ),
    )
    .where(projections.c.name == sa.bindparam("projection"))
    .order_by(checkpoints.c.position)
    .limit(1)
)
"""The serving generation and how far it has got: as far as its slowest slot. The first statement of every read."""


def _snapshot(connection: sa.Connection, source: int, projection: str) -> Snapshot:
    row = connection.execute(_WHERE_IS, {"projection": projection}).first()
    if row is None:
        return Snapshot(source, 0, "", 0, 0)
    return Snapshot(source, row.serving_generation, row.epoch, row.position, row.record_time)


def _forbid_writes(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DB-API connection
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()


def _cause(error: sa.exc.SQLAlchemyError) -> str:
    """The driver's words, without the statement."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]
