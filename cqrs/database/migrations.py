"""Schema versions: Alembic migrations, applied by `orderstream db upgrade` and checked by every server at its start."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

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
    config = _config(schema)
    with engine.connect() as connection:
        before = _revision(connection)
        _refuse_unknown(schema, config, before)
        with connection.begin_nested() if connection.in_transaction() else connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        connection.commit()
        after = _revision(connection)
    return before, str(after)


def check_schema(engine: sa.Engine, schema: Schema) -> str:
    """Make sure that the database has the schema of this code; returns its revision.

    Raises:
        SchemaMismatch: it has another, or none. The message has the command that mends it.
    """
    config = _config(schema)
    with engine.connect() as connection:
        found = _revision(connection)
    _refuse_unknown(schema, config, found)
    wanted = ScriptDirectory.from_config(config).get_current_head()
    if found is None or found != wanted:
        raise SchemaMismatch(
            f"the {schema.name} ({_place(engine)}) is at schema revision {found or 'none'}, this code needs {wanted}: "
            "run `orderstream db upgrade`"
        )
    return found


def _refuse_unknown(schema: Schema, config: Config, revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaMismatch(
            f"the {schema.name} is at schema revision {revision}, which this code does not know: it was written by a "
            "newer release; run that release"
        )


def _config(schema: Schema) -> Config:
    config = Config()
    config.set_main_option("script_location", str(schema.scripts).replace("%", "%%"))
    return config


def _revision(connection: sa.Connection) -> str | None:
    heads = MigrationContext.configure(connection).get_current_heads()
    return heads[0] if heads else None


def _place(engine: sa.Engine) -> str:
    return engine.url.render_as_string(hide_password=True)
