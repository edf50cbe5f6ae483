"""The tables of the HTTP API, one file for each subject, with its rights at its end; last, rights that are narrowed."""

from hookseal.postgres.schema.script import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
runs_from = "0001"  # a worker of 0001 that runs goes on; one that starts refuses 0002, since it cannot read this


def upgrade() -> None:
    """Add the tables, and fill those that are about what is there already."""
    run_sql(
        "0002_tokens.sql",
        "0002_tenants.sql",
        "0002_endpoints.sql",
        "0002_event_ids.sql",
        "0002_channels.sql",
        "0002_publish.sql",
        "0002_event_types.sql",
        "0002_attempts.sql",
        "0002_examples.sql",
        "0002_idempotency.sql",
        "0002_status.sql",
        "0002_api_role.sql",
        "0002_plaintext.sql",
        "0002_revisions.sql",
        "0002_rights.sql",
    )
