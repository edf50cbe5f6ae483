"""The pages of deliveries: whatever is asked for, following the cursor lists every match once, newest first."""

from datetime import UTC, datetime, timedelta
from itertools import product

import asyncpg
import pytest

from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.store.delivery_queries import Filter, page
from hookseal.ground.ids import EndpointId, TenantId

Pool = asyncpg.Pool
_BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_TENANTS = (TenantId("acme"), TenantId("globex"))
_ENDPOINTS = tuple(EndpointId(f"0197c1f0-5e6a-7c3b-9d2e-4f506172839{number}") for number in range(2))
_TYPES = ("invoice.paid", "user.created")
_STATES = (State.PENDING, State.DELIVERED, State.DEAD_LETTER)
# The n-th delivery is created a minute after the one before, and its id begins with that time.
_STORED = """
WITH e AS (
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
    VALUES ($1, $2::integer::text, $3, now(), '', ''))
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, created_at)
VALUES ($1, (lpad(to_hex((extract(epoch FROM $6::timestamptz) * 1000)::bigint), 12, '0') || '7000800000000000'
             || lpad(to_hex($2), 4, '0'))::uuid,
        $4::text::uuid, $2::text, $5::text, CASE WHEN $5::text = 'pending' THEN now() END, $6)
RETURNING id::text
"""


def _created(number: int) -> datetime:
    return _BEGAN + timedelta(minutes=number)


async def _followed(pool: "Pool[asyncpg.Record]", wanted: Filter, *, limit: int, walked: int, few: int) -> list[str]:
    """Return the ids of all pages, none of which is longer than the limit."""
    found, cursor = list[str](), None
    while True:
        items, cursor = await page(pool, wanted, limit=limit, cursor=cursor, walked=walked, few=few)
        assert len(items) <= limit
        found += [item["delivery_id"] for item in items]
        if cursor is None:
            return found


@pytest.mark.req("DEL-15")
async def test_pages_have_every_match_once(pool: "Pool[asyncpg.Record]") -> None:
    """Pages of any length, that read any number of deliveries, have together what the conditions select."""
    kinds = list(product(_TENANTS, _ENDPOINTS, _TYPES, _STATES))
    stored = {
        await pool.fetchval(_STORED, tenant, number, kind, endpoint, state.value, _created(number)): (
            *(tenant, endpoint, kind, state),
            _created(number),
        )
        for number, (tenant, endpoint, kind, state) in enumerate(kinds)
    }
    asked = product((None, _TENANTS[0]), (None, _ENDPOINTS[1]), (None, _TYPES[0]), (None, *_STATES), (None, 11))
    for tenant, endpoint, kind, state, since in asked:
        earliest = None if since is None else _created(since)
        wanted = Filter(tenant_id=tenant, endpoint_id=endpoint, event_type=kind, state=state, since=earliest)
        expected = [
            delivery
            for delivery, has in sorted(stored.items(), reverse=True)
            if all(of in {None, its} for of, its in zip((tenant, endpoint, kind, state), has[:4], strict=True))
            and (earliest is None or has[4] >= earliest)
        ]
        for limit, walked, few in ((100, 100, 100), (1, 2, 0), (3, 5, 100)):
            assert expected == await _followed(pool, wanted, limit=limit, walked=walked, few=few), (wanted, walked)


@pytest.mark.req("DEL-15")
async def test_a_page_reads_a_limited_number_of_deliveries(pool: "Pool[asyncpg.Record]") -> None:
    """A page among deliveries that do not match is empty and has a next page, until all were read."""
    for number in range(5):
        await pool.fetchval(_STORED, "acme", number, _TYPES[0], _ENDPOINTS[0], "delivered", _created(number))
    wanted = Filter(tenant_id=_TENANTS[0], event_type="no.such")
    items, cursor = await page(pool, wanted, limit=10, cursor=None, walked=3)

    assert [] == items
    assert cursor is not None
    assert ([], None) == await page(pool, wanted, limit=10, cursor=cursor, walked=3)


@pytest.mark.parametrize("since", [datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)])
async def test_a_time_before_the_first_id_selects_all(pool: "Pool[asyncpg.Record]", since: datetime) -> None:
    """A time before the first id that can be selects everything."""
    delivery = await pool.fetchval(_STORED, "acme", 1, _TYPES[0], _ENDPOINTS[0], "delivered", _created(1))
    items, _ = await page(pool, Filter(since=since), limit=10, cursor=None)
    assert [delivery] == [item["delivery_id"] for item in items]


async def test_a_time_after_the_last_id_selects_nothing(pool: "Pool[asyncpg.Record]") -> None:
    """A time after the last id that can be selects nothing."""
    await pool.fetchval(_STORED, "acme", 1, _TYPES[0], _ENDPOINTS[0], "delivered", _created(1))
    assert ([], None) == await page(pool, Filter(since=datetime.max.replace(tzinfo=UTC)), limit=10, cursor=None)
