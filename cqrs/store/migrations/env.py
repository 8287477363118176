"""Alembic environment of the write DB; run by cqrs.database.migrations, which opens the connection."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
