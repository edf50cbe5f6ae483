"""The first schema: tables, publishing, rights."""

from hookseal.schema.script import run_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, the publishing functions and their rights."""
    run_sql("0001_tables.sql", "0001_publish.sql", "0001_rights.sql")
