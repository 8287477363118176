"""The two databases with their schemas: upgraded and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cli.exit_codes import ExitCode
from cli.failures import CliError, NotUsable
from cli.supervisor.data_directory import DataDirectory
from cqrs.database.engine import backend_of, database_file, open_engine, shown
from cqrs.database.migrations import Schema, check_schema, upgrade_schema
from cqrs.errors import SchemaMismatch
from cqrs.store.grants import CannotGrant, Grant, grant
from cqrs.store.schema import WRITE_SCHEMA
from readmodel.schema import READ_SCHEMA


class Database(NamedTuple):
    """A database and the schema that it should have."""

    schema: Schema
    url: str


class SchemaState(NamedTuple):
    """How a database's schema stands."""

    name: str
    url: str
    """As it may be shown: without its password."""
    before: str | None
    """Revision that was found. None: none yet, or it could not be told."""
    after: str | None
    """Revision now."""
    problem: str = ""
    """What is wrong, and the command that mends it. Empty: nothing."""


def databases(data: Path, write_db_url: str = "", read_db_url: str = "") -> tuple[Database, Database]:
    """Write DB and read DB: by URL, or else those of a data directory."""
    directory = DataDirectory(data)
    return (
        Database(WRITE_SCHEMA, write_db_url or directory.write_db_url),
        Database(READ_SCHEMA, read_db_url or directory.read_db_url),
    )


def upgrade_all(wanted: Sequence[Database]) -> list[SchemaState]:
    """Bring each to its schema.

    Raises:
        SchemaMismatch: one was written by a newer release.
        NotUsable: a file cannot be made, or a database cannot be reached or refuses.
    """
    states = []
    for database in wanted:
        _make_folder(database.url)
        with _engine(database, "write") as engine:
            before, after = upgrade_schema(engine, database.schema)
        states.append(SchemaState(database.schema.name, shown(database.url), before, after))
    return states


def check_all(wanted: Sequence[Database]) -> list[SchemaState]:
    """Look at each; a database that is not there is not made."""
    states = []
    for database in wanted:
        revision, problem = None, ""
        try:
            revision = _check(database)
        except (SchemaMismatch, NotUsable) as error:
            problem = str(error)
        states.append(SchemaState(database.schema.name, shown(database.url), revision, revision, problem))
    return states


def grant_role(database: Database, role: str, read_only: bool) -> list[Grant]:
    """Let a role of PostgreSQL do what it needs with the write DB, and no more; returns what.

    Raises:
        CliError: it is not on PostgreSQL, there is no such role, or it would have more rights than it should.
        SchemaMismatch: the schema is not that of this release, so some of its tables may be missing.
        NotUsable: the database cannot be reached, or refuses.
    """
    if backend_of(database.url).is_file:
        raise CliError(
            f"{shown(database.url)} has no roles: PostgreSQL has",
            hint="on SQLite, who may read and write the file is the file system's business",
            exit_code=ExitCode.CONFIG,
        )
    with _engine(database, "write") as engine:
        check_schema(engine, database.schema)
        try:
            with engine.begin() as connection:
                return grant(connection, role, read_only=read_only)
        except CannotGrant as error:
            raise CliError(f"nothing was changed: {error}", exit_code=ExitCode.CONFIG) from error


def _check(database: Database) -> str:
    if backend_of(database.url).is_file and not database_file(database.url).exists():
        raise NotUsable(f"{database_file(database.url)} does not exist: run `orderstream db upgrade`")
    with _engine(database, "read") as engine:
        return check_schema(engine, database.schema)


def _make_folder(url: str) -> None:
    if not backend_of(url).is_file:
        return
    folder = database_file(url).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotUsable(f"{folder} cannot be made: {error.strerror}") from error


@contextmanager
def _engine(database: Database, access: Literal["write", "read"]) -> Iterator[sa.Engine]:
    """The database, opened. What goes wrong with it is told in one line, and without its password."""
    engine = open_engine(database.url, access=access, application_name="orderstream db")
    try:
        yield engine
    except DBAPIError as error:
        explained = backend_of(database.url).explain(error)
        raise NotUsable(
            f"the {database.schema.name} {shown(database.url)} refused: {explained}", exit_code=ExitCode.CONFIG
        ) from error
    finally:
        engine.dispose()
