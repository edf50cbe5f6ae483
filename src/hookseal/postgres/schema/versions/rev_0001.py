"""The first schema: tables of deliveries and of secrets, publishing, rights."""

from hookseal.postgres.schema.script import run_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the whole schema. Read the files in this order: the first one explains how a row moves."""
    run_sql(
        "0001_deliveries.sql",
        "0001_secrets.sql",
        "0001_publish.sql",
        "0001_operator_events.sql",
        "0001_retention.sql",
        "0001_statistics.sql",
        "0001_guards.sql",
        "0001_rights.sql",
    )
