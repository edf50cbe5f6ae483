"""Since when an endpoint is failing, as its row says it, and when it is disabled for that."""

import asyncpg
import pytest

from hookseal.dispatcher.core.endpoint_health import Key
from hookseal.dispatcher.store import endpoint_health
from hookseal.dispatcher.store.endpoint_health import failing_too_long, mark_failing, mark_recovered
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import disable_failing_endpoint
from tests.doubles.stored import Installation

Pool = asyncpg.Pool
pytestmark = pytest.mark.req("DEL-08", part="health")
ACME = TenantId("acme")
DAY = 86_400


async def added(installation: Installation, url: str = "https://receiver.example/hook") -> Key:
    """Add an endpoint of acme."""
    return ACME, (await installation.endpoint(url=url)).pointer.endpoint_id


async def failed(installation: Installation, key: Key, *, first_days: float, last_days: float) -> None:
    """Make the row say that the first and the last failure were that many days ago."""
    await installation.pool.execute(
        "UPDATE hookseal.endpoints SET first_failure_at = now() - $2 * interval '1 day',"
        " last_failure_at = now() - $3 * interval '1 day' WHERE id = $1::text::uuid",
        key[1],
        first_days,
        last_days,
    )


async def row(installation: Installation, key: Key) -> asyncpg.Record:
    """Return the row of the endpoint."""
    found = await installation.pool.fetchrow("SELECT * FROM hookseal.endpoints WHERE id = $1::text::uuid", key[1])
    assert found is not None
    return found


async def test_failing_again_moves_the_last_failure_only(installation: Installation) -> None:
    """Failing again moves only the last failure, and is reported once; a recovery clears both."""
    key = await added(installation)

    assert [key] == await mark_failing(installation.pool, [key])
    first = await row(installation, key)
    assert [] == await mark_failing(installation.pool, [key])
    again = await row(installation, key)
    assert first["first_failure_at"] == again["first_failure_at"] < again["last_failure_at"]
    assert [key] == await mark_recovered(installation.pool, [key])
    assert [] == await mark_recovered(installation.pool, [key])
    after = await row(installation, key)
    assert (None, None) == (after["first_failure_at"], after["last_failure_at"])


async def test_a_locked_row_is_left_out(installation: Installation) -> None:
    """A row that another transaction has locked is left out; the others are written."""
    locked, free = await added(installation), await added(installation, "https://receiver.example/other")
    async with installation.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.endpoints WHERE id = $1::text::uuid FOR UPDATE", locked[1])

        assert [free] == await mark_failing(installation.pool, [locked, free])


async def test_a_claim_says_whether_the_endpoint_is_failing(installation: Installation) -> None:
    """A claim says whether the row calls the endpoint failing."""
    key = await added(installation)
    ledger = PostgresLedger(installation.pool, worker="w1", lease_seconds=45)
    found = []
    for _ in range(2):
        [ring] = await installation.deliveries()
        claim = await ledger.claim(ring)
        assert claim is not None
        assert claim.target is not None
        found.append(claim.target.is_failing)
        await mark_failing(installation.pool, [key])

    assert [False, True] == found


async def disabled(installation: Installation) -> list[str]:
    """Disable what has failed for five days; return the reasons."""
    reasons = []
    async with installation.pool.acquire() as connection:
        for found in await failing_too_long(connection, None, after_seconds=5 * DAY):
            operator = installation.operator(connection)
            reasons.append(await disable_failing_endpoint(operator, found, after_seconds=5 * DAY))
    return [reason for reason in reasons if reason is not None]


@pytest.mark.parametrize(
    ("first_days", "last_days", "is_disabled"),
    [
        (6, 0.5, True),
        (4, 0, False),
        pytest.param(30, 29, False, id="nothing was sent since"),
        pytest.param(30, 24, True, id="it failed long enough, long ago"),
    ],
)
async def test_an_endpoint_that_fails_too_long_is_disabled(
    installation: Installation, *, first_days: float, last_days: float, is_disabled: bool
) -> None:
    """An endpoint is disabled if at least five days lie between its first and its last failure."""
    key = await added(installation)
    await failed(installation, key, first_days=first_days, last_days=last_days)
    found = await disabled(installation)
    after = await row(installation, key)

    assert is_disabled == (not after["enabled"])
    assert [after["disabled_reason"]] * is_disabled == found
    if is_disabled:
        assert after["disabled_reason"].startswith("no attempt has succeeded since 20")
        assert after["disabled_reason"].endswith("(HOOKSEAL_DISABLE_AFTER_SECONDS is 432000)")
    assert [] == await disabled(installation)


async def test_a_disabled_endpoints_delivery_waits(installation: Installation) -> None:
    """A delivery that is published for the disabled endpoint waits."""
    key = await added(installation)
    await failed(installation, key, first_days=6, last_days=0)
    await disabled(installation)
    await installation.deliveries()

    assert "endpoint_disabled" == await installation.pool.fetchval("SELECT waiting_for FROM hookseal.deliveries")


async def test_failing_endpoints_are_found_in_pages(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page has at most `BATCH` endpoints, those first that have failed for longest; the next continues behind it."""
    monkeypatch.setattr(endpoint_health, "BATCH", 2)
    keys = [await added(installation, f"https://receiver.example/{number}") for number in range(3)]
    for number, key in enumerate(keys):
        await failed(installation, key, first_days=10 + number, last_days=0)

    first = await failing_too_long(installation.pool, None, after_seconds=5 * DAY)
    assert [keys[2][1], keys[1][1]] == [each.endpoint_id for each in first]
    [last] = await failing_too_long(installation.pool, first[-1], after_seconds=5 * DAY)
    assert keys[0][1] == last.endpoint_id


async def test_an_endpoint_that_recovered_stays_enabled(installation: Installation) -> None:
    """What was found failing and has recovered since, or is being changed, is not disabled."""
    key = await added(installation)
    await failed(installation, key, first_days=6, last_days=0)
    [found] = await failing_too_long(installation.pool, None, after_seconds=5 * DAY)
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        async with installation.pool.acquire() as other, other.transaction():
            await other.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
            assert await disable_failing_endpoint(operator, found, after_seconds=5 * DAY) is None
        await mark_recovered(installation.pool, [key])
        assert await disable_failing_endpoint(operator, found, after_seconds=5 * DAY) is None
    assert (await row(installation, key))["enabled"]
