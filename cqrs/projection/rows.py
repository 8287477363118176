"""The rows that a batch of events touches: a unit of work, or with nothing beneath it, a read model in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from cqrs.projection.view import Key, RowT, View

Load = Callable[[View[Any], Collection[Key]], Sequence[tuple[Any, ...]]]
"""Fetches the rows of a view that have these keys."""

Needs = Mapping[View[Any], Collection[Key]]
"""Rows to load, by view."""


class RowSet:
    """Rows by key, read through to the database, written back all at once.

    A row is read at most once; what an event changes is seen by the events after it. Without `load`, what was never put
    is absent.
    """

    def __init__(self, load: Load | None = None) -> None:
        self._load = load
        self._tables: dict[View[Any], _Table] = {}
        self._updates: list[_Update] = []

    def preload(self, needs: Needs) -> None:
        """Load these rows, one SELECT a view. A row that was not announced is loaded when it is asked for."""
        if self._load is None:
            return
        for view, keys in needs.items():
            table = self._table(view)
            missing = [key for key in keys if key not in table.rows]
            if missing:
                self._fetch(self._load, view, table, missing)

    def get(self, view: View[RowT], *key: object) -> RowT | None:
        """The row as the events so far have left it; None if there is none."""
        table = self._table(view)
        try:
            row = table.rows[key]
        except KeyError:
            if self._load is None:
                return None
            self._fetch(self._load, view, table, [key])
            row = table.rows[key]
        return cast("RowT | None", row)

    def put(self, view: View[RowT], row: RowT) -> None:
        """Insert the row, or replace the one of its key."""
        table = self._table(view)
        key = row[: view.key_length]
        table.set(key, row)
        table.dirty.add(key)

    def delete(self, view: View[RowT], *key: object) -> None:
        """Delete the row of this key, if there is one."""
        table = self._table(view)
        table.set(key, None)
        table.dirty.add(key)

    def update_where(self, view: View[RowT], column: str, value: object, **changes: object) -> None:
        """Set columns in all rows whose `column` has `value`, also in those that no event of the batch names.

        The keys of a view and `column` itself cannot be set.
        """
        table = self._table(view)
        update = _Update(view, column, value, changes)
        for key in table.keys_where(column, value):
            table.set(key, update.applied_to(table.rows[key]))
        self._updates.append(update)

    def write(self, connection: sa.Connection, generation: int) -> set[str]:
        """Write what changed; returns the change keys of the rows."""
        changed: set[str] = set()
        # Updates first: the rows put since then have them in already, and replace what an update left of them.
        for view, column, value, changes in self._updates:
            changed.update(map(view.change_key, view.update_where(connection, generation, column, value, changes)))
        for view, table in self._tables.items():
            if not table.dirty:
                continue
            changed.update(map(view.change_key, table.dirty))
            kept = [row for key in table.dirty if (row := table.rows[key]) is not None]
            if kept:
                view.upsert(connection, generation, kept)
            if len(kept) < len(table.dirty):
                view.delete(connection, generation, [key for key in table.dirty if table.rows[key] is None])
        return changed

    def contents(self, view: View[RowT]) -> dict[Key, RowT]:
        """Every row that is there, by key. Only a set without a database beneath it has all of a view."""
        return {key: cast("RowT", row) for key, row in self._table(view).rows.items() if row is not None}

    def _table(self, view: View[Any]) -> _Table:
        table = self._tables.get(view)
        if table is None:
            table = self._tables[view] = _Table(view)
        return table

    def _fetch(self, load: Load, view: View[Any], table: _Table, keys: Collection[Key]) -> None:
        for key in keys:
            table.set(key, None)
        for loaded in load(view, keys):
            row = loaded
            # The database will see the batch's updates at its end only; this row must show them now.
            for update in self._updates:
                if update.view is view and row[view.columns.index(update.column)] == update.value:
                    row = update.applied_to(row)
            table.set(row[: view.key_length], row)


class _Update(NamedTuple):
    view: View[Any]
    column: str
    value: object
    changes: dict[str, object]

    def applied_to(self, row: Any) -> tuple[Any, ...]:
        return cast("tuple[Any, ...]", row._replace(**self.changes))


class _Table:
    """The known rows of one view. None: known to be absent."""

    def __init__(self, view: View[Any]) -> None:
        self.view = view
        self.rows: dict[Key, tuple[Any, ...] | None] = {}
        self.dirty: set[Key] = set()
        self._by_value: dict[str, dict[object, set[Key]]] = {}

    def set(self, key: Key, row: tuple[Any, ...] | None) -> None:
        if self._by_value:
            self._reindex(key, self.rows.get(key), row)
        self.rows[key] = row

    def keys_where(self, column: str, value: object) -> Iterable[Key]:
        by_value = self._by_value.get(column)
        if by_value is None:
            by_value = self._by_value[column] = {}
            index = self.view.columns.index(column)
            for key, row in self.rows.items():
                if row is not None:
                    by_value.setdefault(row[index], set()).add(key)
        return list(by_value.get(value, ()))

    def _reindex(self, key: Key, old: tuple[Any, ...] | None, new: tuple[Any, ...] | None) -> None:
        for column, by_value in self._by_value.items():
            index = self.view.columns.index(column)
            if old is not None:
                by_value[old[index]].discard(key)
            if new is not None:
                by_value.setdefault(new[index], set()).add(key)
