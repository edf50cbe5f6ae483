"""What an operator asks first: whose deliveries wait, what fails since when, what limits workers, how fast it is."""

import json
from typing import Any, Final

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.core.policy import NOT_SENT
from hookseal.dispatcher.store import backlog, overview
from hookseal.errors import Defect
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

ENDPOINTS: Final = 20  # in trouble that are shown
READ: Final = 1_000  # endpoints in trouble of each kind of which these are chosen
WORKERS: Final = 100
REPLAYS: Final = 10
MOST_OF_ONE: Final = 1_000  # deliveries of a tenant or an endpoint that are counted
SAMPLE: Final = 1_000  # deliveries of which the first attempt is timed
SAMPLE_SECONDS: Final = 300.0

_SQL: Final = Statements("hookseal.dispatcher.store", "status.sql", seconds=None)


async def secrets_refused(executor: Executor, *, most: int = overview.MOST) -> int:
    """Return how many enabled endpoints have a secret that is refused, up to `most`. Raises `Unavailable`."""
    found: int = await _SQL.value(executor, "secrets_refused", most)
    return found


async def read(executor: Executor, *, most: int = overview.MOST) -> dict[str, Any]:
    """Return what a `Status` has, by the names of its fields; `most` bounds each count. Raises `Unavailable`."""
    rest = await _SQL.row(executor, "rest", most)
    first_attempts = await _SQL.row(executor, "first_attempts", SAMPLE, SAMPLE_SECONDS, NOT_SENT)
    if rest is None or first_attempts is None:
        raise Defect("control has a row for the outbox")
    troubled = await _SQL.rows(executor, "in_trouble", ENDPOINTS + 1, READ, MOST_OF_ONE)
    return {
        **rest,
        "overview": await overview.overview(executor, most=most),
        "oldest_waiting_seconds": {
            row["label"]: row["number"] for row in await overview.SQL.rows(executor, "oldest_waiting", overview.LANES)
        },
        "backlog": await backlog.by_tenant(executor, most=MOST_OF_ONE),
        "endpoints": [dict(row) for row in troubled[:ENDPOINTS]],
        "more_endpoints": len(troubled) > ENDPOINTS,
        "most_of_each": MOST_OF_ONE,
        "workers": [dict(row) for row in await _SQL.rows(executor, "workers", LIVE_SECONDS, WORKERS)],
        "replays": [dict(row) for row in await _SQL.rows(executor, "replays", REPLAYS)],
        "first_attempts": {**first_attempts, "waiting_for": json.loads(first_attempts["waiting_for"])},
    }
