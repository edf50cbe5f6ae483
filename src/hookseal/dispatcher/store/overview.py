"""Counts over the whole installation, for an operator."""

import json
from typing import Any, Final

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.errors import Defect
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

MOST: Final = 10_000  # of each kind that are counted
LANES: Final = 250  # held endpoints of each reason, and lanes, of which the oldest delivery is looked up

SQL: Final = Statements("hookseal.dispatcher.store", "overview.sql", seconds=None)


async def overview(executor: Executor, *, most: int = MOST) -> dict[str, Any]:
    """Return how many tenants, endpoints and deliveries of each kind there are, up to `most`.

    `waiting_for` has the held deliveries by what they wait for, `master_keys` the keys by state. Raises `Unavailable`.
    """
    row = await SQL.row(executor, "overview", most, LIVE_SECONDS)
    if row is None:
        raise Defect("overview returns one row")
    keys = await SQL.rows(executor, "keys")
    return {
        **row,
        "waiting_for": json.loads(row["waiting_for"]),
        "master_keys": {each["label"]: each["number"] for each in keys},
    }
