"""Failing endpoints, and when they are disabled."""

import asyncpg
import pytest

from hookseal.dispatcher.core.endpoint_health import (
    AGAIN_SECONDS,
    FAILING_SECONDS,
    MOST_REMEMBERED,
    Changes,
    FailingEndpoints,
    Key,
)
from hookseal.dispatcher.core.model import Outcome, Target
from hookseal.dispatcher.store import endpoint_health
from hookseal.dispatcher.store.endpoint_health import failing_too_long, mark_failing, mark_recovered
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import disable_failing_endpoint
from tests import rows
from tests.doubles.claims import TARGET
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-08", part="health")

ACME = TenantId("acme")
DAY = 86_400
KEY = (TARGET.pointer.tenant_id, TARGET.pointer.endpoint_id)
MARKED = replace(TARGET, is_failing=True)
NOTHING = Changes(failing=[], recovered=[])


async def added(installation: Installation, url: str = "https://receiver.example/hook") -> Key:
    """Add an endpoint of acme."""
    return ACME, (await installation.endpoint(url=url)).pointer.endpoint_id


async def failed(installation: Installation, key: Key, *, first_days: float, last_days: float) -> None:
    """Make the row say that the first and the last failure were that many days ago."""
    times = {"first_failure_at": rows.ago(days=first_days), "last_failure_at": rows.ago(days=last_days)}
    await rows.change(installation.pool, "endpoints", key[1], **times)


async def row(installation: Installation, key: Key) -> asyncpg.Record:
    found = await installation.pool.fetchrow("SELECT * FROM hookseal.endpoints WHERE id = $1::text::uuid", key[1])
    assert found is not None
    return found


async def test_failing_again_moves_the_last_failure_only(installation: Installation) -> None:
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
    locked, free = await added(installation), await added(installation, "https://receiver.example/other")
    async with installation.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.endpoints WHERE id = $1::text::uuid FOR UPDATE", locked[1])

        assert [free] == await mark_failing(installation.pool, [locked, free])


async def test_a_claim_says_whether_the_endpoint_is_failing(installation: Installation) -> None:
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


class Worker:
    """A worker that attempts, and the time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.failing = FailingEndpoints(self.clock)

    async def after(self, seconds: float, outcome: Outcome, target: Target = TARGET) -> Changes:
        """Attempt after that many seconds; return what is to be written then."""
        await self.clock.sleep(seconds)
        self.failing.attempted(target, outcome)
        return self.failing.take()


async def test_a_minute_of_failures_is_failing() -> None:
    worker = Worker()

    assert NOTHING == await worker.after(0, Outcome.TIMEOUT)
    assert NOTHING == await worker.after(FAILING_SECONDS - 1, Outcome.SERVER_ERROR)
    assert [KEY] == (await worker.after(1, Outcome.CLIENT_ERROR)).failing
    assert NOTHING == await worker.after(AGAIN_SECONDS - 1, Outcome.TIMEOUT, MARKED)
    assert [KEY] == (await worker.after(1, Outcome.TIMEOUT, MARKED)).failing


async def test_a_success_restarts_the_minute() -> None:
    worker = Worker()
    await worker.after(0, Outcome.TIMEOUT)

    assert NOTHING == await worker.after(FAILING_SECONDS, Outcome.DELIVERED)
    assert NOTHING == await worker.after(1, Outcome.TIMEOUT)


@pytest.mark.parametrize("target", [TARGET, MARKED])
async def test_a_success_clears_a_failing_row(target: Target) -> None:
    """A success is written if the row says failing, or if this worker has written that since the claim."""
    worker = Worker()
    await worker.after(0, Outcome.TIMEOUT)
    await worker.after(FAILING_SECONDS, Outcome.TIMEOUT)

    assert Changes(failing=[], recovered=[KEY]) == await worker.after(1, Outcome.DELIVERED, target)


async def test_a_success_clears_another_workers_row() -> None:
    assert [KEY] == (await Worker().after(0, Outcome.DELIVERED, MARKED)).recovered


async def test_an_unknown_outcome_changes_nothing() -> None:
    worker = Worker()
    await worker.after(0, Outcome.UNKNOWN)

    assert NOTHING == await worker.after(FAILING_SECONDS, Outcome.UNKNOWN)


async def test_unwritten_states_are_kept() -> None:
    """A state that could not be written is kept, unless a newer one was noticed since."""
    worker = Worker()
    await worker.after(0, Outcome.TIMEOUT)
    unwritten = await worker.after(FAILING_SECONDS, Outcome.TIMEOUT)

    worker.failing.put_back(unwritten)
    assert unwritten == worker.failing.take()
    recovered = await worker.after(1, Outcome.DELIVERED)
    worker.failing.put_back(unwritten)
    assert NOTHING == worker.failing.take()
    worker.failing.put_back(recovered)
    assert recovered == worker.failing.take()
    await worker.after(1, Outcome.TIMEOUT)
    worker.failing.put_back(recovered)
    assert NOTHING == worker.failing.take()


async def test_the_number_of_endpoints_is_bounded() -> None:
    """Beyond the limit the endpoint that failed first is forgotten, and its minute restarts."""
    worker = Worker()
    await worker.after(0, Outcome.TIMEOUT)
    for number in range(MOST_REMEMBERED):
        pointer = replace(TARGET.pointer, endpoint_id=EndpointId(str(number)))
        worker.failing.attempted(replace(TARGET, pointer=pointer), Outcome.TIMEOUT)

    assert NOTHING == await worker.after(FAILING_SECONDS, Outcome.TIMEOUT)
