"""Views as the engine sees them: a table, the type of its rows, and the statements that read and write them.

The statements are built once per view and handed to the driver as they are: an ORM's or a query builder's work per row
would cost more than the row. They are SQLite's; this module is the one that knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

Key = tuple[Any, ...]
"""The values of a row's key columns, without the generation."""

RowT = TypeVar("RowT", bound=tuple[Any, ...])

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class View(Generic[RowT]):
    """One table of a projection.

    The table's first column is `generation`, then come the other columns of its primary key (text or integers), then
    the rest. A row in memory is a NamedTuple of all columns but the generation, in the same order, of the same names.
    """

    def __init__(self, table: sa.Table, row: type[RowT], change_key: Callable[[Key], str]) -> None:
        """Describe a view.

        Args:
            table: where its rows are.
            row: their type.
            change_key: what query servers know a row as ("orders:<id>"), from the row's key.

        Raises:
            TypeError: table and row type do not fit together.
        """
        columns = tuple(column.name for column in table.columns)
        keys = tuple(column.name for column in table.primary_key.columns)
        if columns[0] != "generation" or columns[: len(keys)] != keys or columns[1:] != getattr(row, "_fields", None):
            raise TypeError(f"{row.__name__} is not a row of {table.name}: generation, key columns, other columns")
        self.table = table
        self.name = table.name
        self.row = row
        self.change_key = change_key
        self.columns = columns[1:]
        self.key_columns = keys[1:]
        self.key_length = len(self.key_columns)

        selected = ", ".join(f"t.{column}" for column in self.columns)
        self._select_all = f"SELECT {selected} FROM {self.name} AS t WHERE t.generation = ?"  # noqa: S608 - own names
        self._select = self._select_all
        if self.key_columns:
            # The keys travel as one JSON text, so that the statement is the same for any number of them.
            single = self.key_length == 1
            matches = " AND ".join(
                f"t.{column} = " + ("wanted.value" if single else f"wanted.value ->> {index}")
                for index, column in enumerate(self.key_columns)
            )
            self._select = (
                f"SELECT {selected} FROM json_each(?) AS wanted CROSS JOIN {self.name} AS t "  # noqa: S608 - own names
                f"ON t.generation = ? AND {matches}"
            )
        rest = ", ".join(f"{column} = excluded.{column}" for column in columns[len(keys) :])
        self._upsert = (
            f"INSERT INTO {self.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608
            f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {rest}"
        )
        self._delete = f"DELETE FROM {self.name} WHERE " + " AND ".join(f"{key} = ?" for key in keys)  # noqa: S608

    def load(self, connection: sa.Connection, generation: int, keys: Collection[Key]) -> list[RowT]:
        """The rows that have these keys, in one SELECT."""
        if not self.key_columns:
            return self.load_all(connection, generation)
        wanted = _JSON([key[0] for key in keys] if self.key_length == 1 else list(keys))
        found = connection.exec_driver_sql(self._select, (wanted, generation)).all()
        return [self.row(*row) for row in found]

    def load_all(self, connection: sa.Connection, generation: int) -> list[RowT]:
        """Every row of the generation, in no order."""
        return [self.row(*row) for row in connection.exec_driver_sql(self._select_all, (generation,)).all()]

    def upsert(self, connection: sa.Connection, generation: int, rows: Collection[RowT]) -> None:
        """Insert the rows or replace those of the same key, in one statement."""
        connection.exec_driver_sql(self._upsert, [(generation, *row) for row in rows])

    def delete(self, connection: sa.Connection, generation: int, keys: Collection[Key]) -> None:
        """Delete the rows of these keys, in one statement."""
        connection.exec_driver_sql(self._delete, [(generation, *key) for key in keys])

    def update_where(
        self, connection: sa.Connection, generation: int, column: str, value: object, changes: dict[str, object]
    ) -> list[Key]:
        """Set columns in all rows whose `column` has `value`; returns the keys of the rows that this changed."""
        assignments = ", ".join(f"{name} = ?" for name in changes)
        differs = " OR ".join(f"{name} <> ?" for name in changes)
        statement = (
            f"UPDATE {self.name} SET {assignments} WHERE generation = ? AND {column} = ? AND ({differs}) "  # noqa: S608
            f"RETURNING {', '.join(self.key_columns)}"
        )
        arguments = (*changes.values(), generation, value, *changes.values())
        return [tuple(row) for row in connection.exec_driver_sql(statement, arguments).all()]
