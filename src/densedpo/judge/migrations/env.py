"""Alembic's entry point: runs on the connection that `store` hands over, or prints the SQL for a dialect."""

from __future__ import annotations

from alembic import context

from densedpo.judge.schema import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(
        dialect_name=context.config.attributes["dialect_name"], target_metadata=metadata, literal_binds=True
    )
else:
    context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
