"""What differs between databases as such, whatever tables they have. Implementations: `sqlite.py`, `postgresql.py`.

The statements of the event log have a place of their own: `cqrs/store/statements.py`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError


class EngineOptions(NamedTuple):
    """How an engine is to be opened; see `open_engine`."""

    access: Literal["write", "read"]
    durable: bool
    connections: int
    busy_timeout_seconds: float
    snapshot: bool
    application_name: str


class Backend(Protocol):
    """One kind of database."""

    @property
    def is_file(self) -> bool:
        """Whether a database is a file of this machine, which is made when it is opened and has one owner."""
        ...

    def open(self, url: sa.URL, options: EngineOptions) -> sa.Engine:
        """An engine. Nothing is connected yet.

        Raises:
            ConfigurationError: the URL will not do.
        """
        ...

    def migrating(self, connection: sa.Connection) -> AbstractContextManager[None]:
        """While open, the transaction of `connection` is the only one that migrates, and may take its time."""
        ...

    def version_table(self, database: str) -> str:
        """The name of the table with the schema's revision; `database` is "write DB" or "read DB"."""
        ...

    def explain(self, error: DBAPIError) -> str:
        """What went wrong, in one line and without a password; where it is known, what to do about it."""
        ...
