"""Hardening: locks that only our roles may take, publish rights that end with their role, deliveries that wait."""

from hookseal.schema.script import run_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change tables and functions, then grant what their use needs."""
    run_sql("0006_locks.sql", "0006_held.sql", "0006_due.sql", "0006_rights.sql")
