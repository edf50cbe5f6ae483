"""Retries, rotation, audit, and what workers agree on."""

from hookseal.schema.script import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add their columns and tables, and the roles of workers, operators and readers."""
    run_sql("0002_tables.sql", "0002_publish.sql", "0002_rights.sql")
