"""The two databases with their schemas: upgraded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cli.failures import NotUsable
from cli.supervisor.data_directory import DataDirectory
from cqrs.database.engine import database_file, open_engine
from cqrs.database.migrations import Schema, check_schema, upgrade_schema
from cqrs.errors import SchemaMismatch
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
        NotUsable: a file cannot be made.
    """
    states = []
    for database in wanted:
        file = database_file(database.url)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotUsable(f"{file.parent} cannot be made: {error.strerror}") from error
        engine = open_engine(database.url, access="write")
        try:
            before, after = upgrade_schema(engine, database.schema)
        finally:
            engine.dispose()
        states.append(SchemaState(database.schema.name, database.url, before, after))
    return states


def check_all(wanted: Sequence[Database]) -> list[SchemaState]:
    """Look at each; a database that is not there is not made."""
    states = []
    for database in wanted:
        if not database_file(database.url).exists():
            problem = f"{database_file(database.url)} does not exist: run `orderstream db upgrade`"
            states.append(SchemaState(database.schema.name, database.url, None, None, problem))
            continue
        engine = open_engine(database.url, access="read")
        try:
            revision = check_schema(engine, database.schema)
            states.append(SchemaState(database.schema.name, database.url, revision, revision))
        except SchemaMismatch as error:
            states.append(SchemaState(database.schema.name, database.url, None, None, str(error)))
        finally:
            engine.dispose()
    return states
