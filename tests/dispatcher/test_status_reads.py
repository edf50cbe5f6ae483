"""What the status reads, by the plans that PostgreSQL chooses itself: no more if four times as much is stored."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hookseal.dispatcher.core.policy import NOT_SENT
from hookseal.dispatcher.store import backlog, endpoint_queries, overview, status
from hookseal.postgres.pool import Connection, Pool
from hookseal.worker.metrics import database

pytestmark = pytest.mark.req("OPS-15", part="status")

FEW, MANY = 20_000, 80_000  # deliveries that are pending
_AND_BUFFERS = 150  # another level of some indexes
# Of ten endpoints four are held by their breaker, two of which are failing; one is at its limit. Of the others the
# deliveries are due, or wait for their next attempt. As many were delivered, one of ten was given up. No trigger runs:
# it would take most of the time.
_MANY_ENDPOINTS = """
SET LOCAL session_replication_role = replica;
INSERT INTO hookseal.tenants (tenant_id) SELECT 't' || n FROM generate_series({least} / 100, {most} / 100 - 1) AS n;
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, first_failure_at, rotate_every_days, secret_updated_at)
SELECT 't' || n / 10, md5(n::text)::uuid, 'https://a.example/' || n, '{{*}}',
       CASE WHEN n % 10 < 2 THEN now() - make_interval(secs => n) END, 7, now() - interval '8 days'
FROM generate_series({least} / 10, {most} / 10 - 1) AS n;
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for, since)
SELECT tenant_id, id, 'breaker', now() - interval '1 h'
FROM generate_series({least} / 10, {most} / 10 - 1) AS n JOIN hookseal.endpoints ON id = md5(n::text)::uuid
WHERE n % 10 < 4;
INSERT INTO hookseal.lanes (tenant_id, endpoint_id)
SELECT 't' || n / 10, md5(n::text)::uuid FROM generate_series({least} / 10, {most} / 10 - 1) AS n WHERE n % 10 = 4;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at, rung_at, waiting_for, held_at)
SELECT 't' || n / 100, hookseal.uuid7(), md5((n / 10)::text)::uuid, 'e' || n,
       now() + make_interval(secs => CASE WHEN n / 10 % 10 = 9 THEN 3600 ELSE n / 1e3 - 3600 END),
       CASE WHEN n / 10 % 10 = 5 AND n % 10 = 0 THEN now() END,
       CASE WHEN n / 10 % 10 < 4 THEN 'breaker' WHEN n / 10 % 10 = 4 THEN 'concurrency' END,
       CASE WHEN n / 10 % 10 < 5 THEN now() - interval '30 min' END
FROM generate_series({least}, {most} - 1) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, finished_at)
SELECT 't' || n / 100, hookseal.uuid7(), md5((n / 10)::text)::uuid, 'd' || n,
       CASE WHEN n % 10 = 0 THEN 'dead_letter' ELSE 'delivered' END, NULL, now()
FROM generate_series({least}, {most} - 1) AS n;
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker, endpoint_id)
SELECT d.tenant_id, d.id, 1, now(), 'delivered', '{{}}', 'w', d.endpoint_id
FROM hookseal.deliveries AS d WHERE d.finished_at IS NOT NULL
ON CONFLICT DO NOTHING;
"""
# Of two endpoints one is ordered: what is pending is its line. As many ended at the other, of which half was given up.
# So the statistics promise that soon a delivery of the line was given up, too: none was.
LINE = "ffffffff-ffff-4fff-bfff-ffffffffffff"
_ONE_LINE = """
SET LOCAL session_replication_role = replica;
INSERT INTO hookseal.tenants (tenant_id) VALUES ('t0') ON CONFLICT DO NOTHING;
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, ordered)
SELECT 't0', e.id, 'https://a.example/', '{{*}}', e.id = '{line}'
FROM unnest('{{{line}, eeeeeeee-eeee-4eee-aeee-eeeeeeeeeeee}}'::uuid[]) AS e (id)
ON CONFLICT DO NOTHING;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at, position, waiting_for, held_at)
SELECT 't0', hookseal.uuid7(), '{line}', 'e' || n, now(), n + 1,
       CASE WHEN n > 0 THEN 'order' END, CASE WHEN n > 0 THEN now() END
FROM generate_series({least}, {most} - 1) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, finished_at)
SELECT 't0', hookseal.uuid7(), 'eeeeeeee-eeee-4eee-aeee-eeeeeeeeeeee', 'd' || n,
       CASE WHEN n % 2 = 0 THEN 'dead_letter' ELSE 'delivered' END, NULL, now()
FROM generate_series({least}, {most} - 1) AS n;
"""


def _reads() -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Yield each statement of a status, or of endpoints, with limits that the smaller installation reaches."""
    own = {
        "rest": (100,),
        "first_attempts": (50, 300.0, NOT_SENT),
        "in_trouble": (6, 50, 50),
        "workers": (30.0, 9),
        "replays": (9,),
    }
    counts = {"overview": (100, 30.0), "oldest_waiting": (20,)}
    tenants = {"by_tenant": (50, 5, 50, 20), "of_tenants": (50, ["t0", "t1", "none"], 50)}
    endpoints = {
        "page_of_tenant": ("t0", None, None, 11),
        "page": (None, None, None, 50),
        "find": ("t0", LINE, None),
        "some": ("t0", [LINE]),
        "show": ("t0", LINE, None),
        "stats_of_tenant": ("t0", None, None, 11),
        "stats_of_all": (None, 50),
        "page_in_states": (None, ["stopped"], None, 50, 100),
    }
    metrics = {"lines_stopped": (100,)}
    every = (
        (status._SQL, own),
        (overview.SQL, counts),
        (backlog.SQL, tenants),
        (endpoint_queries._SQL, endpoints),
        (database._SQL, metrics),
    )
    for statements, calls in every:
        for name, arguments in calls.items():
            yield name, statements[name], arguments


@pytest.mark.parametrize("grow", [_MANY_ENDPOINTS, _ONE_LINE], ids=["many endpoints", "one line"])
async def test_a_status_reads_no_more_if_more_is_stored(pool: Pool, grow: str) -> None:
    """Neither with a plan for the arguments, nor with one for any, which a connection uses after five times."""
    async with pool.acquire() as connection:
        few = await _grown(connection, grow, 0, FEW)
        many = await _grown(connection, grow, FEW, MANY)

    assert {} == {
        read: (before, many[read]) for read, before in few.items() if many[read] > 1.5 * before + _AND_BUFFERS
    }


async def _grown(connection: Connection, grow: str, least: int, most: int) -> dict[tuple[str, str], int]:
    """Store more, and return how many blocks each statement then reads, by its name and the kind of its plan."""
    async with connection.transaction():
        await connection.execute(grow.format(least=least, most=most, line=LINE))
    await connection.execute("ANALYZE")
    return {
        (name, mode): await _blocks(connection, mode, text, *arguments)
        for name, text, arguments in _reads()
        for mode in ("force_custom_plan", "force_generic_plan")
    }


async def _blocks(connection: Connection, mode: str, text: str, *arguments: Any) -> int:
    """Return how many blocks the second run of a statement reads: the first one marks index entries that are dead."""
    await connection.execute(f"SET plan_cache_mode = {mode}; PREPARE asked AS {text}")
    given = ", ".join(map(_literal, arguments))
    found: dict[str, Any] = {}
    for _ in range(2):
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE asked ({given})")
        found = json.loads(plan)[0]["Plan"]
    await connection.execute("DEALLOCATE asked; RESET plan_cache_mode")
    blocks: int = found["Shared Hit Blocks"] + found["Shared Read Blocks"]
    return blocks


def _literal(given: Any) -> str:
    if isinstance(given, list):
        return f"'{{{','.join(given)}}}'"
    return "NULL" if given is None else repr(given)
