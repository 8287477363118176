"""What roles may do with the write DB on PostgreSQL. The server's can append events, and never change or remove one.

It does not own the tables: whoever does can take rights and triggers away. Migrations, and a new epoch after a restore,
are the owner's. On `log_head` the server's role can move the head, but not name another epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from cqrs.database.engine import backend_of
from cqrs.errors import OrderstreamError
from cqrs.store.schema import WRITE_SCHEMA, log_head, metadata

_HEAD_COLUMNS = ("position", "hash", "record_time")

SERVER: Mapping[str, Sequence[str]] = {
    "events": ("SELECT", "INSERT"),
    "log_head": ("SELECT",),  # and UPDATE of what moves with each event, which also lets it lock the row
    "log_epochs": ("SELECT",),
    "command_results": ("SELECT", "INSERT", "DELETE"),
    "leases": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "snapshots": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""By table. Every table of the write DB has to be here."""

_READING = ("SELECT",)
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


class CannotGrant(OrderstreamError):
    """The role would have other rights than it should, or does not exist."""


class Grant(NamedTuple):
    """What a role may do with one table."""

    table: str
    rights: tuple[str, ...]
    """Such as SELECT; UPDATE, if only of some columns, with them in brackets."""


def grant(connection: sa.Connection, role: str, *, read_only: bool) -> list[Grant]:
    """Give a role what it needs of the write DB, take from it what it does not, and make sure that it has no more.

    To be called in a writing transaction of the tables' owner; roll back if it raises.

    Args:
        connection: to PostgreSQL.
        role: its name. It must exist.
        read_only: for who only reads the log, as `orderstream log verify` does; else for the command server.

    Raises:
        CannotGrant: there is no such role, or it has more rights than it should by other ways. The message says which.
    """
    wanted = _wanted(connection, read_only=read_only)
    _refuse_unfit(connection, role, wanted)
    name = _quoted(connection, role)
    schema = _quoted(connection, str(connection.exec_driver_sql("SELECT current_schema()").scalar_one()))
    database = _quoted(connection, str(connection.exec_driver_sql("SELECT current_database()").scalar_one()))
    connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {database} TO {name}")
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
    for table, rights in wanted.items():
        connection.exec_driver_sql(f"REVOKE ALL ON {schema}.{_quoted(connection, table)} FROM {name}")
        connection.exec_driver_sql(f"GRANT {', '.join(rights)} ON {schema}.{_quoted(connection, table)} TO {name}")
    if not read_only:
        columns = ", ".join(_HEAD_COLUMNS)
        connection.exec_driver_sql(f"GRANT UPDATE ({columns}) ON {schema}.{log_head.name} TO {name}")
    _refuse_other(connection, role, wanted)
    head = () if read_only else (f"UPDATE ({', '.join(_HEAD_COLUMNS)})",)
    return [Grant(table, (*rights, *(head if table == log_head.name else ()))) for table, rights in wanted.items()]


def _wanted(connection: sa.Connection, *, read_only: bool) -> dict[str, Sequence[str]]:
    wanted: dict[str, Sequence[str]] = {table: _READING if read_only else SERVER[table] for table in metadata.tables}
    wanted[backend_of(connection.engine.url).version_table(WRITE_SCHEMA.name)] = _READING
    return wanted


def _refuse_unfit(connection: sa.Connection, role: str, tables: Iterable[str]) -> None:
    """Make sure that rights can be given to the role, and would mean something."""
    found = connection.exec_driver_sql("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (role,)).one_or_none()
    if found is None:
        raise CannotGrant(f"there is no role {role}: create it first, as in CREATE ROLE {role} LOGIN PASSWORD '…'")
    if found.rolsuper:
        raise CannotGrant(f"role {role} is a superuser, whom nothing is forbidden: give the server another one")
    for table in tables:
        owner, is_ours, is_theirs = connection.exec_driver_sql(_OWNER, (role, table)).one()
        if is_theirs:
            how = "owns" if owner == role else f"is a member of {owner}, which owns"
            raise CannotGrant(
                f"role {role} {how} {table}, and could take back whatever it is denied: let another role own the tables"
            )
        if not is_ours:
            raise CannotGrant(f"only {owner}, who owns {table}, can give rights on it: run this as that role")


_OWNER = (
    "SELECT pg_get_userbyid(relowner) AS owner, pg_has_role(relowner, 'USAGE') AS is_ours, "
    "pg_has_role(%s, relowner, 'MEMBER') AS is_theirs FROM pg_class WHERE oid = to_regclass(%s)"
)
"""Who owns a table, and whether this session's role, and another one, are that or a member of it."""


def _refuse_other(connection: sa.Connection, role: str, wanted: Mapping[str, Sequence[str]]) -> None:
    """Make sure of the outcome: rights also come from PUBLIC, and from roles that this one is a member of."""
    for table, rights in wanted.items():
        for right in _ALL:
            has = connection.exec_driver_sql(_HAS, (role, table, right)).scalar_one()
            if has and right not in rights:
                raise CannotGrant(
                    f"role {role} would still have {right} on {table}, by a grant to PUBLIC or to a role that it is "
                    "in: take that away first"
                )
            if right in rights and not has:
                raise CannotGrant(f"role {role} did not get {right} on {table}")


_HAS = "SELECT has_table_privilege(%s, %s, %s)"


def _quoted(connection: sa.Connection, identifier: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(identifier)
