"""Runs the read DB's migrations on the connection that `cqrs.database.migrations` hands over."""

from __future__ import annotations

from alembic import context

from readmodel.schema import READ_METADATA

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    target_metadata=READ_METADATA,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
