"""An attempt shows the url that it used, whatever happens to its endpoint meanwhile."""

import asyncio
from itertools import count

import pytest

from hookseal.dispatcher.core.model import Attempt, Claim, Outcome, State, Verdict
from hookseal.dispatcher.store.delivery_queries import show
from hookseal.dispatcher.store.history import PostgresHistory
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Busy
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.postgres.pool import Pool
from tests import rows
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-15")

ACME = TenantId("acme")
URL = "https://receiver.example"
FAILED = Attempt(outcome=Outcome.SERVER_ERROR, status=503, duration_ms=12, snippet="", signed_by=())
RETRIED = Verdict(state=State.PENDING, retry_in_seconds=0)


async def move(installation: Installation, endpoint: EndpointId, url: str) -> None:
    """Give the endpoint another url, as an operator does."""
    await installation.act(update_endpoint, ACME, endpoint, {"url": url}, own_drain_seconds=25)


def used(claim: Claim) -> str:
    """Return the url to which the request of this claim goes."""
    assert claim.target is not None
    return claim.target.pointer.url


async def fail(installation: Installation, claim: Claim) -> None:
    """Record that the receiver answered 503: the delivery is due again."""
    await installation.ledger().record(claim, FAILED, RETRIED, "later")


async def shown(installation: Installation, claim: Claim) -> list[str | None]:
    """Return the urls of the attempts of the delivery, as `delivery show` has them."""
    return [each["url"] for each in (await show(installation.pool, claim.ring.delivery_id))["attempt_log"]]


async def test_an_attempt_shows_the_url_that_it_used(installation: Installation) -> None:
    """Also if the url changed while the request was under way, or the endpoint was deleted."""
    endpoint = (await installation.endpoint(url=f"{URL}/1")).pointer.endpoint_id
    claim = await installation.claim()
    await fail(installation, claim)
    claim = await installation.claim(claim.ring)
    await move(installation, endpoint, f"{URL}/2")
    await move(installation, endpoint, f"{URL}/3")
    await fail(installation, claim)
    claim = await installation.claim(claim.ring)
    await installation.act(delete_endpoint, ACME, endpoint)
    await fail(installation, claim)

    assert [f"{URL}/1", f"{URL}/1", f"{URL}/3"] == await shown(installation, claim)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_claim_that_began_before_a_change_shows_what_it_read(installation: Installation, alone: bool) -> None:
    """A claim may begin before a change is committed, and lock the endpoint after it: then it reads the new url."""
    endpoint = (await installation.endpoint(url=f"{URL}/1")).pointer.endpoint_id
    rings = [(await installation.deliveries())[0] for _ in range(1 if alone else 2)]
    async with installation.pool.acquire() as connection, connection.transaction():
        began_at = await connection.fetchval("SELECT now()")  # also that of the claim, which joins the transaction
        await move(installation, endpoint, f"{URL}/2")
        ledger = PostgresLedger(connection, worker="w1", lease_seconds=45)
        [claim, *_] = (await ledger.claim_all(rings, most_bytes=10_000)).claims
    await fail(installation, claim)

    assert f"{URL}/2" == used(claim)
    assert began_at < await installation.pool.fetchval("SELECT url_since FROM hookseal.endpoints")
    assert [f"{URL}/2"] == await shown(installation, claim)


async def test_each_attempt_beside_changes_shows_its_url(installation: Installation) -> None:
    """Claims and changes of the url that run at the same time, in any order."""
    endpoint = (await installation.endpoint(url=f"{URL}/0")).pointer.endpoint_id
    rings = [(await installation.deliveries())[0] for _ in range(30)]
    claims: list[Claim] = []

    async def claim_all(some: int) -> None:
        for ring in rings[some::3]:
            while True:
                try:
                    claim = await installation.ledger().claim(ring)
                except Busy:
                    continue
                assert claim is not None
                claims.append(claim)
                break

    numbers = count(1)
    claiming = asyncio.gather(*map(claim_all, range(3)))
    while not claiming.done():
        await move(installation, endpoint, f"{URL}/{next(numbers)}")
    await claiming
    for claim in claims:
        await fail(installation, claim)

    assert 1 < len(set(map(used, claims)))
    assert [[used(claim)] for claim in claims] == [await shown(installation, claim) for claim in claims]


async def test_an_unknown_url_is_not_guessed(installation: Installation) -> None:
    """What was sent before the upgrade, since when urls are kept, may have gone to another url."""
    endpoint = (await installation.endpoint(url=f"{URL}/1")).pointer.endpoint_id
    claim = await installation.claim()
    await fail(installation, claim)
    await rows.change(installation.pool, "endpoints", url_since=rows.Sql("clock_timestamp()"))
    assert [None] == await shown(installation, claim)
    await move(installation, endpoint, f"{URL}/2")
    assert [None] == await shown(installation, claim)


async def kept(pool: Pool) -> list[str]:
    """Return the former urls, in order."""
    return [row["url"] for row in await pool.fetch("SELECT url FROM hookseal.endpoint_urls ORDER BY url")]


@pytest.mark.req("DEL-16")
async def test_a_url_leaves_with_the_last_delivery_that_may_have_used_it(installation: Installation) -> None:
    pool, history = installation.pool, PostgresHistory(installation.pool)
    used_by_one = (await installation.endpoint(url=f"{URL}/1")).pointer.endpoint_id
    [ring] = await installation.deliveries()
    unused = (await installation.endpoint(url=f"{URL}/3")).pointer.endpoint_id
    await move(installation, used_by_one, f"{URL}/2")
    await installation.act(delete_endpoint, ACME, unused)
    assert [f"{URL}/1", f"{URL}/3"] == await kept(pool)

    assert 0 == await history.remove_urls(days=0)  # not before a day has passed
    await rows.change(pool, "endpoint_urls", until=rows.ago(days=1))
    # The delivery was made before the url ended.
    early = "01900000-0000-7000-8000-000000000001"
    await rows.change(pool, "deliveries", ring.delivery_id, id=early)
    assert 0 == await history.remove_urls(days=1)
    await rows.change(pool, "endpoint_urls", until=rows.ago(days=31))
    assert 1 == await history.remove_urls(days=30)
    assert [f"{URL}/1"] == await kept(pool)
    await rows.remove(pool, "deliveries", early)
    assert 1 == await history.remove_urls(days=30)
