"""When a scheduled rotation is announced and made, and which endpoints are examined."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Unavailable
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.secrets.endpoint import schedule
from hookseal.secrets.endpoint.schedule import Scheduled, Turn
from tests.doubles.stored import Installation, begin

pytestmark = pytest.mark.req("SEC-11")

Pool = asyncpg.Pool
BORN = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINT = EndpointId("01900000-0000-7000-8000-000000000001")


def after(**passed: float) -> datetime:
    """Return the time so long after the secret became current."""
    return BORN + timedelta(**passed)


def scheduled(days: int, at: datetime, **changes: Any) -> Scheduled:
    """Return an endpoint with a rotation every that many days, as read at that time."""
    asked: dict[str, Any] = {
        "tenant_id": TenantId("acme"),
        "endpoint_id": ENDPOINT,
        "rotate_every_days": days,
        "updated_at": BORN,
        "overlap_ends_at": None,
        "announced_at": None,
        "read_at": at,
    }
    return Scheduled(**asked | changes)


@pytest.mark.parametrize(
    ("days", "at", "announced_at", "overlap_ends_at", "turn"),
    [
        (30, after(days=28, hours=23), None, None, Turn.WAIT),
        (30, after(days=29), None, None, Turn.ANNOUNCE),
        (30, after(days=29, hours=23), after(days=29), None, Turn.WAIT),
        (30, after(days=30), after(days=29), None, Turn.ROTATE),
        # The warning has its full length, however late it was given.
        (30, after(days=30), after(days=29, hours=12), None, Turn.WAIT),
        (30, after(days=30, hours=12), after(days=29, hours=12), None, Turn.ROTATE),
        (30, after(days=200), None, None, Turn.ANNOUNCE),
        (30, after(days=200, hours=23), after(days=200), None, Turn.WAIT),
        (30, after(days=201), after(days=200), None, Turn.ROTATE),
        # An announcement of an earlier or postponed rotation does not count for this one.
        (30, after(days=29), after(hours=-24), None, Turn.ANNOUNCE),
        (30, after(days=29), after(days=6), None, Turn.ANNOUNCE),
        # A period of one day: the warning is half of it.
        (1, after(hours=11), None, None, Turn.WAIT),
        (1, after(hours=12), None, None, Turn.ANNOUNCE),
        (1, after(hours=24), after(hours=12), None, Turn.ROTATE),
        # During an overlap nothing is rotated; at its end it is, as announced.
        (1, after(days=2), None, after(days=7), Turn.WAIT),
        (1, after(days=6, hours=12), None, after(days=7), Turn.ANNOUNCE),
        (1, after(days=6, hours=23), after(days=6, hours=12), after(days=7), Turn.WAIT),
        (1, after(days=7), after(days=6, hours=12), after(days=7), Turn.ROTATE),
        (30, after(days=30), after(days=29), after(days=1), Turn.ROTATE),
    ],
)
def test_a_rotation_is_announced_and_made_in_time(
    days: int, at: datetime, announced_at: datetime | None, overlap_ends_at: datetime | None, turn: Turn
) -> None:
    """A rotation is announced a day (or half a period) ahead, and made after that warning, never in an overlap."""
    found = scheduled(days, at, announced_at=announced_at, overlap_ends_at=overlap_ends_at)
    assert turn is found.turn


@given(
    days=st.integers(1, 30),
    age=st.integers(0, 90 * 86_400),
    announced=st.none() | st.integers(0, 90 * 86_400),
    overlap=st.none() | st.integers(0, 7 * 86_400),
)
def test_no_rotation_is_made_without_its_announcement(
    days: int, age: int, announced: int | None, overlap: int | None
) -> None:
    """For any row, a rotation is made only when due, outside an overlap, and a full warning after its announcement."""
    found = scheduled(
        days,
        after(seconds=age),
        announced_at=None if announced is None or announced > age else after(seconds=announced),
        overlap_ends_at=None if overlap is None else after(seconds=overlap),
    )
    assert timedelta(hours=12) <= found.warning <= timedelta(hours=24)
    if found.turn is Turn.ROTATE:
        assert found.announced_at is not None
        assert found.read_at - found.announced_at >= found.warning
        assert found.read_at - found.updated_at >= timedelta(days=days)
        assert found.overlap_ends_at is None or found.overlap_ends_at <= found.read_at
    else:
        assert found.rotates_at > found.read_at or found.turn is Turn.ANNOUNCE
    if found.turn is Turn.ANNOUNCE:
        assert found.rotates_at >= found.read_at + found.warning


@pytest.mark.parametrize(("configured", "expected"), [(0, 86_400), (3_600, 86_400), (172_800, 172_800)])
def test_a_scheduled_rotation_has_an_overlap(configured: int, expected: int) -> None:
    """After a scheduled rotation both secrets sign for at least a day, whatever operators have configured."""
    assert expected == schedule.overlap_seconds(configured)


async def aged(installation: Installation, endpoint_id: str, *, days: int | None, age: str) -> None:
    """Set the rotation period of the endpoint and the age of its secret."""
    await installation.pool.execute(
        "UPDATE hookseal.endpoints SET rotate_every_days = $2, secret_updated_at = now() - $3::text::interval"
        " WHERE id = $1::text::uuid",
        endpoint_id,
        days,
        age,
    )


@pytest.mark.parametrize(
    ("days", "age", "is_near"),
    [
        (30, "28 days 23 hours", False),
        (30, "29 days 1 minute", True),
        (1, "11 hours", False),
        (1, "12 hours 1 minute", True),
        (None, "90 days", False),
        (1, "-1 day", False),
        (1, "9000 years", False),  # hookseal never writes this time: it is left out, so that every page can be read
    ],
)
async def test_endpoints_with_a_near_rotation_are_listed(
    pool: "Pool[asyncpg.Record]", days: int | None, age: str, is_near: bool
) -> None:
    """Endpoints whose rotation may have to be announced are listed with their times; all others are left out."""
    installation = await begin(pool)
    endpoint_id = (await installation.endpoint()).pointer.endpoint_id
    if age == "9000 years":
        await aged(installation, endpoint_id, days=days, age="0 days")
        await pool.execute("UPDATE hookseal.endpoints SET secret_updated_at = '-infinity'")
    else:
        await aged(installation, endpoint_id, days=days, age=age)
    found = await schedule.upcoming(pool, None)
    assert ([endpoint_id] if is_near else []) == [each.endpoint_id for each in found]
    assert [Turn.ANNOUNCE] * len(found) == [each.turn for each in found]


async def test_a_long_list_is_read_in_pages(pool: "Pool[asyncpg.Record]") -> None:
    """The list is read in pages, oldest secrets first, each endpoint once, even among secrets of equal age."""
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret_ref, secret_updated_at,"
        " rotate_every_days)"
        " SELECT 't' || n % 3, hookseal.uuid7(), 'https://x/' || n, '{*}', 'db:x', date_trunc('day', now())"
        " - make_interval(days => 31 + n % 2), 30 FROM generate_series(1, 150) AS n"
    )
    first = await schedule.upcoming(pool, None)
    second = await schedule.upcoming(pool, first[-1])
    assert (schedule.PAGE, 50) == (len(first), len(second))
    both = first + second
    assert 150 == len({each.endpoint_id for each in both})
    assert sorted(each.updated_at for each in both) == [each.updated_at for each in both]


async def test_a_silent_database_is_unavailable(pool: "Pool[asyncpg.Record]") -> None:
    """If the database does not answer, the error is `Unavailable`."""
    await pool.close()
    with pytest.raises(Unavailable):
        await schedule.upcoming(pool, None)


async def test_a_single_endpoint_is_read_as_in_the_list(pool: "Pool[asyncpg.Record]") -> None:
    """A single endpoint is read as in the list; one without a schedule, or of another tenant, is None."""
    installation = await begin(pool)
    endpoint_id = (await installation.endpoint()).pointer.endpoint_id
    async with pool.acquire() as connection:
        assert await schedule.of_endpoint(connection, TenantId("acme"), endpoint_id) is None
        await aged(installation, endpoint_id, days=30, age="31 days")
        found = await schedule.of_endpoint(connection, TenantId("acme"), endpoint_id)
        assert await schedule.of_endpoint(connection, TenantId("globex"), endpoint_id) is None
    [listed] = await schedule.upcoming(pool, None)
    assert found is not None
    assert (listed.updated_at, listed.due_at, listed.turn) == (found.updated_at, found.due_at, found.turn)
