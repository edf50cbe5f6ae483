"""What the status reads, by the plans that PostgreSQL chooses itself: no more if four times as much is stored."""

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from hookseal.dispatcher.core.policy import NOT_SENT
from hookseal.dispatcher.store import backlog, endpoint_queries, overview, status
from hookseal.postgres.pool import Connection, Pool
from hookseal.worker.metrics import database
from tests import many_rows

pytestmark = pytest.mark.req("OPS-15", part="status")

Grow = Callable[[Connection, int, int], Awaitable[None]]

FEW, MANY = 20_000, 80_000  # deliveries that are pending
_AND_BUFFERS = 150  # another level of some indexes
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


async def _one_line(connection: Connection, least: int, most: int) -> None:
    async with connection.transaction():
        await connection.execute(_ONE_LINE.format(least=least, most=most, line=LINE))


@pytest.mark.parametrize("grow", [many_rows.grow, _one_line], ids=["many endpoints", "one line"])
async def test_a_status_reads_no_more_if_more_is_stored(pool: Pool, grow: Grow) -> None:
    """Neither with a plan for the arguments, nor with one for any, which a connection uses after five times."""
    async with pool.acquire() as connection:
        few = await _grown(connection, grow, 0, FEW)
        many = await _grown(connection, grow, FEW, MANY)

    assert {} == {
        read: (before, many[read]) for read, before in few.items() if many[read] > 1.5 * before + _AND_BUFFERS
    }


async def _grown(connection: Connection, grow: Grow, least: int, most: int) -> dict[tuple[str, str], int]:
    """Store more, and return how many blocks each statement then reads, by its name and the kind of its plan."""
    await grow(connection, least, most)
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
