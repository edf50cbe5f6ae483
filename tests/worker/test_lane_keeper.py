"""What one turn of the lane keeper fetches, on a real PostgreSQL."""

from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.lane_store import PostgresLanes
from hookseal.dispatcher.lanes.worker_lanes import MOST_ASKED, Lanes
from hookseal.worker.inflight import InFlight
from hookseal.worker.lane_keeper import LaneKeeper
from hookseal.worker.metrics.counters import WorkerMeter
from tests.doubles.clock import FakeClock

Pool = asyncpg.Pool
_LANES = 2 * MOST_ASKED
# So many crowded lanes, of which only the last has deliveries that wait.
_STORE = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT 'acme', lpad(n::text, 32, '0')::uuid, 'https://a.example/' || n, '{*}' FROM generate_series(1, $1::integer) AS n;
INSERT INTO hookseal.lanes (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
VALUES ('acme', 'e', 'a', now(), '', '');
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, waiting_for, held_at)
SELECT tenant_id, hookseal.uuid7(), id, 'e', 'concurrency', now() FROM hookseal.endpoints ORDER BY id DESC LIMIT 1;
"""


@pytest.mark.req("DEL-09", part="lanes")
async def test_a_turn_asks_every_crowded_lane(pool: "Pool[asyncpg.Record]") -> None:
    """A delivery in one of many crowded lanes is fetched in the turn that sees them, though all others are empty."""
    await pool.execute(_STORE.replace("$1", str(_LANES)))
    lanes, parts = Lanes(32), SimpleNamespace(clock=FakeClock(), jitter=lambda: 0.5, log=structlog.get_logger())
    keeper = LaneKeeper(PostgresLanes(pool), lanes, InFlight(500), _any(parts), meter=WorkerMeter())
    await keeper.once(_any(SimpleNamespace(wake=lambda: None)))

    assert _LANES == len(lanes.crowded)
    waiting = await pool.fetchval("SELECT id::text FROM hookseal.deliveries")
    assert [waiting] == [ring.delivery_id for ring in lanes.pick(10, 0.0)]


def _any(value: object) -> Any:
    return value
