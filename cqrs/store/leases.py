"""Leases in the write DB: which of several processes does what only one needs to do.

Held by the database's clock, so that the processes' own need not agree. A lease saves work and decides nothing: a
process that was frozen may believe that it still holds one (Kleppmann, "How to do distributed locking", 2016), so what
it does must be fenced elsewhere.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cqrs.database.engine import backend_of, open_engine
from cqrs.store.port import StoreError

_NOW = {
    "sqlite": "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
}
"""Microseconds since 1970, by the name of SQLAlchemy's dialect."""

_HOLD = (
    "INSERT INTO leases (name, holder, expire_time) VALUES (:name, :holder, {now} + :micros) "
    "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expire_time = excluded.expire_time "
    "WHERE leases.holder = excluded.holder OR leases.expire_time < {now}"
)
"""Take a lease, or renew it; changes no row if another holds it."""

_RELEASE = "DELETE FROM leases WHERE name = :name AND holder = :holder"
"""Give a lease back."""


class SqlLeases:
    """The leases of one write DB, over one connection of its own."""

    def __init__(self, url: str, holder: str, *, application_name: str = "orderstream") -> None:
        """Prepare to hold leases in the write DB at `url` as `holder`, which is this process's alone.

        Raises:
            ConfigurationError: the URL will not do.
        """
        self._holder = holder
        # Not durable: a lease that a crash of the database loses is taken anew.
        self._engine = open_engine(url, access="write", application_name=application_name)
        self._explain = backend_of(url).explain
        now = _NOW[self._engine.dialect.name]
        self._hold = sa.text(_HOLD.format(now=now))

    def hold(self, name: str, seconds: float) -> bool:
        """Take or renew a lease for so long from now; whether this process holds it. Blocks on the database.

        Raises:
            StoreError: the database cannot be asked.
        """
        arguments = {"name": name, "holder": self._holder, "micros": round(seconds * 1_000_000)}
        return self._changed(self._hold, arguments) == 1

    def release(self, name: str) -> None:
        """Give a lease back, if this process holds it. Blocks on the database.

        Raises:
            StoreError: the database cannot be asked; the lease runs out by itself.
        """
        self._changed(sa.text(_RELEASE), {"name": name, "holder": self._holder})

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _changed(self, statement: sa.TextClause, arguments: dict[str, object]) -> int:
        try:
            with self._engine.begin() as connection:
                return connection.execute(statement, arguments).rowcount
        except DBAPIError as error:
            raise StoreError(f"the write DB failed: {self._explain(error)}") from error
        except PoolTimeout as error:
            raise StoreError("the connection for leases is in use") from error
