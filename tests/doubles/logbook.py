"""The audit log of a test's installation."""

import json
from typing import Any

from hookseal.postgres.pool import Pool


async def audited(pool: Pool, tenant: str = "acme") -> list[dict[str, Any]]:
    """Return the audit rows of the tenant, oldest first: action, subject, who, before and after."""
    rows = await pool.fetch(
        "SELECT action, subject, actor, before, after FROM hookseal.audit_log WHERE tenant_id = $1 ORDER BY sequence",
        tenant,
    )
    return [
        {
            "action": row["action"],
            "subject": row["subject"],
            "who": row["actor"].partition("/")[2],
            "before": None if row["before"] is None else json.loads(row["before"]),
            "after": None if row["after"] is None else json.loads(row["after"]),
        }
        for row in rows
    ]
