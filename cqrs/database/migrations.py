"""Schema versions: Alembic migrations, applied by `orderstream db upgrade` and checked by every server at its start."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from cqrs.database.engine import backend_of, shown
from cqrs.errors import SchemaMismatch


class Schema(NamedTuple):
    """The schema of one database."""

    name: str
    """What operators call the database: "write DB" or "read DB"."""
    scripts: Path
    """The folder of its Alembic migrations (env.py, versions/)."""


def upgrade_schema(engine: sa.Engine, schema: Schema) -> tuple[str | None, str]:
    """Bring the database to the schema of this code; returns its revision before and after.

    Raises:
        SchemaMismatch: the database is of a revision that this code does not know.
    """
    table = _version_table(engine, schema)
    config = _config(schema, table)
    with engine.begin() as connection, backend_of(engine.url).migrating(connection):
        # The revision is read when nobody else can be migrating any more.
        before = _revision(connection, table)
        _refuse_unknown(schema, config, before)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        after = _revision(connection, table)
    return before, str(after)


def check_schema(engine: sa.Engine, schema: Schema) -> str:
    """Make sure that the database has the schema of this code; returns its revision.

    Raises:
        SchemaMismatch: it has another, or none. The message has the command that mends it.
    """
    table = _version_table(engine, schema)
    config = _config(schema, table)
    with engine.connect() as connection:
        found = _revision(connection, table)
    _refuse_unknown(schema, config, found)
    wanted = ScriptDirectory.from_config(config).get_current_head()
    if found is None or found != wanted:
        raise SchemaMismatch(
            f"the {schema.name} ({shown(engine.url)}) is at schema revision {found or 'none'}, this code needs "
            f"{wanted}: run `orderstream db upgrade`"
        )
    return found


def _refuse_unknown(schema: Schema, config: Config, revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaMismatch(
            f"the {schema.name} is at schema revision {revision}, which this code does not know: it was written by a "
            "newer release; run that release"
        )


def _version_table(engine: sa.Engine, schema: Schema) -> str:
    return backend_of(engine.url).version_table(schema.name)


def _config(schema: Schema, version_table: str) -> Config:
    config = Config()
    config.attributes["version_table"] = version_table
    config.set_main_option("script_location", str(schema.scripts).replace("%", "%%"))
    return config


def _revision(connection: sa.Connection, version_table: str) -> str | None:
    heads = MigrationContext.configure(connection, opts={"version_table": version_table}).get_current_heads()
    return heads[0] if heads else None
