"""Connections to PostgreSQL that do not wait for ever.

What bounds a statement otherwise is the server (`statement_timeout`) and the kernel (`tcp_user_timeout`). Neither helps
against a server that is frozen while something keeps its connections up: a paused machine behind a proxy, a stopped
process.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg import errors
from psycopg.abc import PQGen

ANSWER_SECONDS = 45.0
"""A connection whose server has not answered for so long is given up. Longer than any statement may take there."""

_INTERVAL_SECONDS = 0.1
"""How often a wait looks whether the process has been told to stop; psycopg's own."""

_T = TypeVar("_T")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed, with an OperationalError, when an answer takes too long."""

    answer_seconds: float | None = ANSWER_SECONDS
    """None: wait for as long as it takes."""

    def has_been_cut(self) -> bool:
        """Whether the server has closed the connection, as far as this machine has heard. Asks nobody.

        An idle connection has nothing to read, unless the server says good-bye.
        """
        if self.closed:
            return True
        waiting = select.poll()
        waiting.register(self.fileno(), select.POLLIN)
        return bool(waiting.poll(0))

    def wait(self, gen: PQGen[_T], interval: float = _INTERVAL_SECONDS, timeout: float | None = None) -> _T:
        """See psycopg."""
        if timeout is not None or self.answer_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_seconds)
        except errors._WaitTimeout:  # noqa: SLF001 - "callers should handle it", it says
            # What it is in the middle of is not known: it is of no use any more.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {self.answer_seconds:g} s") from None


@contextmanager
def answered_at_leisure(connection: sa.Connection) -> Iterator[None]:
    """While open, this connection waits for as long as an answer takes."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, BoundedConnection):
        raise TypeError(f"{type(driver).__name__} was not opened by cqrs.database")
    before, driver.answer_seconds = driver.answer_seconds, None
    try:
        yield
    finally:
        driver.answer_seconds = before
