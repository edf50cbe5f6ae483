"""Header values, scheduled rotation, evidence of rotations, and what tells that a row was put back."""

from hookseal.schema.script import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add their columns, the table of canaries, and the rights that their use needs."""
    run_sql("0003_tables.sql", "0003_rights.sql")
