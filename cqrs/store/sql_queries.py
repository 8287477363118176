"""LogQueries on SQLAlchemy Core, for SQLite and PostgreSQL.

Record times have no index: they never run backwards along the log, so a binary search over positions finds a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import sqlalchemy as sa

from cqrs.records import EventRecord, LogHead
from cqrs.store import epochs, figures
from cqrs.store.port import StoreError, within_bytes
from cqrs.store.queries import (
    EVERYTHING,
    SCAN_POSITIONS,
    EventsFound,
    LogFigures,
    LogFilter,
    LogPage,
    first_at_or_after,
    found_within,
    page_of,
)
from cqrs.store.schema import command_results, events, log_head
from cqrs.store.statements import LogStatements

_BY_INDEX_EVENTS = 5_000
"""Aggregates with so many events in all are looked up by their index rather than by walking the log."""

_ROWS_PER_FETCH = 32
"""Rows come in small parts, so that a page bounded in bytes does not fetch what it will not have."""

_e = events.c


class SqlQueries:
    """The part of the SQL event store that only reads, for EventService."""

    _statements: LogStatements

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection in a read-only transaction that sees one moment."""
        raise NotImplementedError

    def read_page(self, from_position: int, limit: int, max_bytes: int, chosen: LogFilter = EVERYTHING) -> LogPage:
        """See LogQueries."""
        with self._reading() as connection:
            head = _head(connection)
            if from_position > head.position:
                return LogPage(head, [], from_position)
            if chosen.chooses_all:
                all_events = self._statements.read_log(connection, from_position, limit, max_bytes)
                kept = within_bytes(all_events, max_bytes)
                last = min(head.position, from_position + limit - 1)
                return LogPage(head, kept, kept[-1].position + 1 if kept else last + 1)
            conditions: list[sa.ColumnElement[bool]]
            if chosen.aggregate_ids and _is_better_by_index(connection, chosen, head.position - from_position + 1):
                last = head.position
                conditions = [_e.position.in_(_positions_by_index(connection, chosen, from_position, last, limit))]
            else:
                last = min(head.position, from_position + SCAN_POSITIONS - 1)
                # An expression, so that no index of the ids is taken: the range of positions is what bounds the work.
                ids = [_e.aggregate_id.concat("").in_(chosen.aggregate_ids)] if chosen.aggregate_ids else []
                conditions = [_e.position.between(from_position, last), *_of_types(chosen), *ids]
            statement = sa.select(events).where(*conditions).order_by(_e.position).limit(limit)
            with _records(connection, statement) as found:
                return page_of(head, found, last, limit, max_bytes)

    def read_aggregate_backwards(
        self, aggregate_id: str, from_version: int, limit: int, max_bytes: int
    ) -> list[EventRecord]:
        """See LogQueries."""
        of_aggregate = sa.select(events).where(_e.aggregate_id == aggregate_id, _e.version <= from_version)
        newest_first = of_aggregate.order_by(_e.version.desc()).limit(limit)
        with self._reading() as connection, _records(connection, newest_first) as found:
            return within_bytes(found, max_bytes)

    def position_at(self, record_time: int) -> int:
        """See LogQueries."""
        with self._reading() as connection:
            head = _head(connection)
            if head.record_time < record_time:
                return head.position + 1
            return first_at_or_after(record_time, head.position + 1, lambda at: _time(connection, _e.position == at))

    def version_at(self, aggregate_id: str, record_time: int) -> int:
        """See LogQueries."""
        with self._reading() as connection:
            newest = sa.select(sa.func.max(_e.version)).where(_e.aggregate_id == aggregate_id)
            last = connection.execute(newest).scalar_one() or 0
            return first_at_or_after(
                record_time,
                last + 1,
                lambda version: _time(connection, sa.and_(_e.aggregate_id == aggregate_id, _e.version == version)),
            )

    def read_epochs(self) -> list[epochs.LogEpoch]:
        """See LogQueries."""
        with self._reading() as connection:
            return epochs.read_epochs(connection)

    def read_figures(self) -> LogFigures:
        """See LogQueries."""
        with self._reading() as connection:
            return figures.read_figures(connection)

    def find_correlated(self, correlation_id: str, limit: int, max_bytes: int) -> EventsFound:
        """See LogQueries."""
        correlated = sa.select(events).where(_e.correlation_id == correlation_id).order_by(_e.position).limit(limit + 1)
        with self._reading() as connection, _records(connection, correlated) as found:
            return found_within(found, limit, max_bytes)

    def find_caused(
        self, causation_ids: Sequence[str], limit: int, max_bytes: int, without_correlation_id: str | None = None
    ) -> EventsFound:
        """See LogQueries."""
        # Said twice, for the index is partial, and a database need not see that a list of values has no NULL. The
        # order is the index's: so no more is read than is wanted, however much an event has led to.
        caused = sa.select(events).where(_e.causation_id.in_(causation_ids), _e.causation_id.is_not(None))
        if without_correlation_id is not None:
            caused = caused.where(_e.correlation_id.is_distinct_from(without_correlation_id))
        in_order = caused.order_by(_e.causation_id, _e.position).limit(limit + 1)
        with self._reading() as connection, _records(connection, in_order) as found:
            return found_within(found, limit, max_bytes)

    def find_event(self, event_id: str, from_position: int, to_position: int) -> EventRecord | None:
        """See LogQueries."""
        in_range = sa.and_(_e.position.between(from_position, to_position), _e.event_id == event_id)
        with self._reading() as connection, _records(connection, sa.select(events).where(in_range).limit(1)) as found:
            return next(found, None)

    def find_request(self, request_id: str, from_position: int, to_position: int) -> EventRecord | None:
        """See LogQueries."""
        in_range = sa.and_(_e.position.between(from_position, to_position), _e.request_id == request_id)
        newest_first = sa.select(events).where(in_range).order_by(_e.position.desc()).limit(1)
        with self._reading() as connection, _records(connection, newest_first) as found:
            return next(found, None)

    def result_time(self, request_id: str) -> int | None:
        """See LogQueries."""
        result = sa.select(command_results.c.record_time).where(command_results.c.request_id == request_id)
        with self._reading() as connection:
            return connection.execute(result).scalar_one_or_none()


def _head(connection: sa.Connection) -> LogHead:
    head = log_head.c
    row = connection.execute(sa.select(head.position, head.hash, head.epoch, head.record_time)).one_or_none()
    if row is None:
        raise StoreError(f"the write DB has no row in {log_head.name}: restore it from a backup")
    return LogHead._make(row)


def _is_better_by_index(connection: sa.Connection, chosen: LogFilter, remaining: int) -> bool:
    """Whether the aggregates have few events, and fewer than the rest of the log. Asks the index alone."""
    of_ids = sa.select(sa.literal(1)).where(_e.aggregate_id.in_(chosen.aggregate_ids)).limit(_BY_INDEX_EVENTS + 1)
    count = connection.execute(sa.select(sa.func.count()).select_from(of_ids.subquery())).scalar_one()
    return count <= _BY_INDEX_EVENTS and count < remaining


def _positions_by_index(
    connection: sa.Connection, chosen: LogFilter, from_position: int, to_position: int, limit: int
) -> Sequence[int]:
    """Positions first: what is sorted here must not carry the events themselves."""
    # An expression, so that the index of positions is not taken.
    in_range = (_e.position + 0).between(from_position, to_position)
    wanted = sa.select(_e.position).where(_e.aggregate_id.in_(chosen.aggregate_ids), in_range, *_of_types(chosen))
    return connection.execute(wanted.order_by(_e.position).limit(limit)).scalars().all()


def _of_types(chosen: LogFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if chosen.aggregate_types:
        conditions.append(_e.aggregate_type.in_(chosen.aggregate_types))
    if chosen.event_types:
        conditions.append(_e.event_type.in_(chosen.event_types))
    return conditions


def _time(connection: sa.Connection, event: sa.ColumnElement[bool]) -> int:
    found = connection.execute(sa.select(_e.record_time).where(event)).scalar_one_or_none()
    if found is None:
        raise StoreError("the log has a gap: run `orderstream verify`")
    return int(found)


@contextmanager
def _records(connection: sa.Connection, statement: sa.Select[tuple[object, ...]]) -> Iterator[Iterator[EventRecord]]:
    """Rows as events, fetched as they are asked for."""
    options = {"stream_results": True, "max_row_buffer": _ROWS_PER_FETCH}
    with connection.execute(statement, execution_options=options) as rows:
        yield map(EventRecord._make, rows)
