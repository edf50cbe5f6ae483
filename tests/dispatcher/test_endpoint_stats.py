"""The statistics of endpoints: sums of what workers counted, estimates of durations, and what is left to do."""

from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import pytest

from hookseal.dispatcher.core.endpoint_health import BOUNDS_MS, Counts
from hookseal.dispatcher.store import endpoint_queries
from hookseal.errors import Malformed, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.statements import statements
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-08")

ACME = TenantId("acme")
UNKNOWN = EndpointId("0197c1f0-5e6a-7c3b-9d2e-4f5061728394")
NOTHING = {"attempts": 0, "delivered": 0, "success_rate": None, "p50_ms": None, "p99_ms": None}
_GROWN = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT 'acme', md5(n::text)::uuid, 'https://a.example/' || n, '{*}' FROM generate_series(1, 500) AS n;
INSERT INTO hookseal.attempt_counts (tenant_id, endpoint_id, since, delivered, durations)
SELECT 'acme', md5(n::text)::uuid, now() - make_interval(mins => 15 * q), 1, array_fill(1::bigint, ARRAY[27])
FROM generate_series(1, 500) AS n, generate_series(0, 40) AS q;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT 'acme', 'e' || n, 'invoice.paid', now(), '', '' FROM generate_series(1, 20000) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id)
SELECT 'acme', hookseal.uuid7(), md5((n % 500 + 1)::text)::uuid, 'e' || n FROM generate_series(1, 20000) AS n;
ANALYZE;
"""


def counted(delivered: int, *durations: int) -> Counts:
    """Return counts with one attempt of each of these durations."""
    counts = Counts(delivered=delivered)
    for duration in durations:
        counts.durations[BOUNDS_MS.index(duration)] += 1
    return counts


async def test_postgresql_and_workers_have_equal_bounds(installation: Installation) -> None:
    """PostgreSQL and the worker count by the same bounds."""
    assert list(BOUNDS_MS) == await installation.pool.fetchval("SELECT hookseal.duration_bounds()")


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0] * 27, 0.5, None),
        ([0, 10] + [0] * 25, 0.5, 1.5),
        ([0, 10] + [0] * 25, 1.0, 2.0),
        ([50] + [0] * 3 + [50] + [0] * 22, 0.5, 1.0),
        ([50] + [0] * 3 + [50] + [0] * 22, 0.75, 6.0),
        ([99] + [0] * 25 + [1], 0.99, 1.0),
        ([0] * 26 + [5], 0.5, 20_000.0),
    ],
)
async def test_a_percentile_lies_between_its_bounds(
    pool: "asyncpg.Pool[asyncpg.Record]", counts: Sequence[int], share: float, expected: float | None
) -> None:
    """A percentile lies between the bounds of its count; what took longest counts as 20 s."""
    found = await pool.fetchval("SELECT hookseal.duration_percentile($1::bigint[], $2::float8)", counts, share)
    assert expected == (None if found is None else pytest.approx(found))


async def test_hour_and_day_add_up_the_written_counts(installation: Installation) -> None:
    """Counts of several writes are added up; hour and day contain the counts of their time, and no older ones."""
    one = (await installation.endpoint()).pointer.endpoint_id
    two = (await installation.endpoint(url="https://receiver.example/two")).pointer.endpoint_id
    await endpoint_queries.add(installation.pool, {(ACME, one): counted(1, 10), (ACME, two): counted(0, 5)})
    await endpoint_queries.add(installation.pool, {(ACME, one): counted(1, 10, 10)})
    await installation.pool.execute(
        "INSERT INTO hookseal.attempt_counts"
        " SELECT tenant_id, endpoint_id, since - make_interval(mins => age), 1, durations"
        " FROM hookseal.attempt_counts, unnest(ARRAY[90, 1530]) AS age WHERE endpoint_id = $1::text::uuid",
        one,
    )
    items, following = await endpoint_queries.stats_page(installation.pool, ACME, None, limit=5, cursor=None)
    first, second = items[1], items[0]
    assert (two, one, None) == (second["endpoint_id"], first["endpoint_id"], following)
    assert {
        "attempts": 3, "delivered": 2, "success_rate": pytest.approx(2 / 3), "p50_ms": pytest.approx(8.5),
        "p99_ms": pytest.approx(9.97),
    } == first["last_hour"]  # fmt: skip
    assert (6, 3, 0.5) == tuple(first["last_day"][name] for name in ("attempts", "delivered", "success_rate"))
    assert (1, 0, 0.0) == tuple(second["last_hour"][name] for name in ("attempts", "delivered", "success_rate"))

    assert (1, 0) == (
        await endpoint_queries.forget(installation.pool),
        await endpoint_queries.forget(installation.pool),
    )
    assert 3 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.attempt_counts")


async def test_statistics_have_state_and_waiting_deliveries(installation: Installation) -> None:
    """The state of the endpoint, its pending and waiting deliveries, and since when the oldest is due."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [due], [held], [later] = [await installation.deliveries() for _ in range(3)]
    since = datetime(2026, 1, 2, tzinfo=UTC)
    for ring, change in (
        (due, f"next_attempt_at = '{since.isoformat()}'"),
        (held, "waiting_for = 'secret', next_attempt_at = '2026-01-01Z'"),
        (later, "next_attempt_at = now() + interval '1 h'"),
    ):
        statement = f"UPDATE hookseal.deliveries SET {change} WHERE id::text = $1"  # noqa: S608
        await installation.pool.execute(statement, ring.delivery_id)
    [item], _ = await endpoint_queries.stats_page(installation.pool, ACME, endpoint, limit=1, cursor=None)
    assert {
        "tenant_id": "acme", "endpoint_id": endpoint, "state": "healthy", "pending": 3, "waiting": 1,
        "oldest_due_at": since, "last_hour": NOTHING, "last_day": NOTHING,
    } == item  # fmt: skip
    for change, state in (
        ("UPDATE hookseal.endpoints SET first_failure_at = now(), last_failure_at = now()", "failing"),
        (
            "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints",
            "held",
        ),
        ("UPDATE hookseal.endpoints SET enabled = false", "disabled"),
    ):
        await installation.pool.execute(change)
        [item], _ = await endpoint_queries.stats_page(installation.pool, ACME, endpoint, limit=1, cursor=None)
        assert state == item["state"]


async def test_the_cursor_leads_to_the_next_page(installation: Installation) -> None:
    """A page ends at its limit, and its cursor leads to the next; another tenant's endpoint is not found."""
    added = [await installation.endpoint(url=f"https://receiver.example/{n}") for n in range(3)]
    await installation.endpoint("globex")
    first, cursor = await endpoint_queries.stats_page(installation.pool, ACME, None, limit=2, cursor=None)
    rest, end = await endpoint_queries.stats_page(installation.pool, ACME, None, limit=2, cursor=cursor)
    newest = sorted((each.pointer.endpoint_id for each in added), reverse=True)
    assert (newest, None) == ([item["endpoint_id"] for item in first + rest], end)
    with pytest.raises(NotFound):
        await endpoint_queries.stats_page(installation.pool, TenantId("globex"), newest[0], limit=1, cursor=None)
    with pytest.raises(Malformed):
        await endpoint_queries.stats_page(installation.pool, ACME, None, limit=0, cursor=None)


async def test_statistics_read_only_their_endpoint(installation: Installation) -> None:
    """The statistics of an endpoint read only its own counts and pending deliveries, by their indexes."""
    await installation.pool.execute(_GROWN)
    endpoint = await installation.pool.fetchval("SELECT md5('1')::uuid::text")
    texts = statements("hookseal.dispatcher.store", "endpoint_stats.sql")
    rows = await installation.pool.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {texts['page']}", "acme", endpoint, None, 2)
    plan = "\n".join(row[0] for row in rows)
    for index in ("attempt_counts_pkey", "deliveries_pending", "endpoints_id_key"):
        assert index in plan, plan
    for name in ("deliveries", "attempt_counts", "endpoints"):
        assert f"Seq Scan on {name}" not in plan, plan
    oldest = "\n".join(row[0] for row in await installation.pool.fetch(f"EXPLAIN {texts['forget']}", 1_000))
    assert "attempt_counts_oldest" in oldest, oldest


async def test_the_read_only_role_reads_both_views(installation: Installation) -> None:
    """The read-only role reads both views, with everything that they call."""
    await installation.endpoint()
    async with installation.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE hookseal_readonly")
        assert 2 == len(await connection.fetch("SELECT * FROM hookseal.endpoint_stats"))
        assert 1 == len(await connection.fetch("SELECT * FROM hookseal.endpoint_backlog"))
