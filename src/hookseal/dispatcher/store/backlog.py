"""Whose deliveries wait: the backlog of each tenant, and for how long its oldest delivery has waited."""

from collections.abc import Sequence
from typing import Any, Final

from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

TENANTS: Final = 10  # that are shown each by itself
MOST: Final = 10_000  # deliveries of each kind of a tenant that are counted
TENANTS_READ: Final = 2_000
_ENDPOINTS_READ: Final = 5_000  # with held deliveries, of named tenants
_OLDEST_READ: Final = 200  # deliveries, and held endpoints, of each kind

SQL: Final = Statements("hookseal.dispatcher.store", "backlog.sql", seconds=None)
_OF_TENANT: Final = ("tenant_id", "pending", "due", "waiting", "oldest_seconds")


async def by_tenant(
    executor: Executor, *, tenants: int = TENANTS, most: int = MOST, read: int = TENANTS_READ
) -> dict[str, Any]:
    """Return the backlog of the tenants that have waited for longest, and of all others together.

    `tenants` has for each what is `pending`, what of that is `due` and what is `waiting`, each counted up to `most`,
    and `oldest_seconds`: for how long its oldest delivery has been due or held, None if nothing is due, and only
    disabled endpoints hold something. `others` has the number of further `tenants`, what they have `pending`, up to
    `most`, and their `oldest_seconds`. It is `complete` unless there are more tenants than are `read`: then some are
    not counted among the others. Raises `Unavailable`.
    """
    rows = await SQL.rows(executor, "by_tenant", most, tenants, read, _OLDEST_READ)
    if not rows:
        return {"tenants": [], "others": {"tenants": 0, "pending": 0, "oldest_seconds": None}, "complete": True}
    others = {
        "tenants": rows[0]["other_tenants"],
        "pending": rows[0]["others_pending"],
        "oldest_seconds": rows[0]["others_oldest_seconds"],
    }
    return {"tenants": [_shown(row) for row in rows], "others": others, "complete": rows[0]["complete"]}


async def of_tenants(executor: Executor, tenants: Sequence[str], *, most: int = MOST) -> dict[str, dict[str, Any]]:
    """Return the backlog of each of these tenants, as `by_tenant` does. Raises `Unavailable`."""
    rows = await SQL.rows(executor, "of_tenants", most, list(tenants), _ENDPOINTS_READ)
    return {row["tenant_id"]: _shown(row) for row in rows}


def _shown(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in _OF_TENANT}
