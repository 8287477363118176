"""A map from texts to numbers that is as large as it need be and takes a bounded amount of memory."""

from __future__ import annotations

import sqlite3

_IN_MEMORY = 250_000
"""Entries: about 50 MB. Files with fewer customers and days are never written to disk."""


class SpillingMap:
    """Keeps what was used since it last grew too large in memory, and everything else in a temporary file.

    The file is SQLite's own kind of temporary database: in the folder for such files, and gone with the process. To be
    used on one thread, and closed.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._recent: dict[str, int] = {}
        self._disk: sqlite3.Connection | None = None

    def get(self, key: str) -> int | None:
        """The number of a text; None if it has none."""
        value = self._recent.get(key)
        if value is None and self._disk is not None:
            row = self._disk.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
            value = None if row is None else int(row[0])
        return value

    def put(self, key: str, value: int) -> None:
        """Give a text a number."""
        self._recent[key] = value
        if len(self._recent) > self._in_memory:
            self._spill()

    def close(self) -> None:
        """Forget everything."""
        self._recent.clear()
        if self._disk is not None:
            self._disk.close()
            self._disk = None

    def _spill(self) -> None:
        if self._disk is None:
            self._disk = sqlite3.connect("", isolation_level=None)
            for statement in (
                "PRAGMA journal_mode = OFF",
                "CREATE TABLE entries (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
            ):
                self._disk.execute(statement)
        self._disk.execute("BEGIN")
        self._disk.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", self._recent.items())
        self._disk.execute("COMMIT")
        self._recent.clear()
