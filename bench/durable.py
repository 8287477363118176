"""What one durable commit costs on this machine: the smallest transaction that is on the disk when it returns."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import psycopg

from cqrs.database.sqlite import sqlite_module

_TIMES = 100
_ROW = b"x" * 500
"""About an event."""


def fsync_ms(folder: Path) -> float:
    """Appending a page to a file and fdatasync, in milliseconds."""
    file = folder / "fsync.bin"
    with file.open("wb", buffering=0) as out:

        def write() -> None:
            out.write(b"x" * 4096)
            os.fdatasync(out.fileno())

        return _median_ms(write)


def sqlite_commit_ms(folder: Path) -> float:
    """One row into a table in a file of `folder`, WAL mode, `synchronous=FULL`, in milliseconds."""
    connection = sqlite_module().connect(folder / "commit.db", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS one (number INTEGER PRIMARY KEY, data BLOB)")

        def commit() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO one (data) VALUES (?)", (_ROW,))
            connection.execute("COMMIT")

        return _median_ms(commit)
    finally:
        connection.close()


def postgresql_commit_ms(url: str) -> float:
    """One row into a table of its own in the database at `url`, `synchronous_commit` on, in milliseconds."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bench_commit (number bigserial PRIMARY KEY, data bytea)")
        connection.execute("SET synchronous_commit = on")

        def commit() -> None:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO bench_commit (data) VALUES (%b)", (_ROW,))
            connection.execute("COMMIT")

        return _median_ms(commit)


def _median_ms(work: Callable[[], None]) -> float:
    work()
    seconds = []
    for _ in range(_TIMES):
        begin = perf_counter()
        work()
        seconds.append(perf_counter() - begin)
    return 1000 * median(seconds)
