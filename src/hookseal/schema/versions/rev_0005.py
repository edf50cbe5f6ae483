"""The TLS identity of an endpoint: a column of the pointer, and what is shown of it."""

from hookseal.schema.script import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both columns, and the rights that their use needs."""
    run_sql("0005_tables.sql", "0005_rights.sql")
