"""The entry point of Alembic: runs the migrations in the open transaction of `upgrade`, on its connection."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema="hookseal",
)
with context.begin_transaction():
    context.run_migrations()
