"""The life of master keys, which of them a secret was ever sealed under, and the end of plaintext."""

from hookseal.schema.script import run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add their columns and functions, and the rights that their use needs."""
    run_sql("0004_tables.sql", "0004_rights.sql")
