"""What the leader does with held endpoints, on a clock that the test moves."""

import asyncio
from collections.abc import Sequence

import pytest
import structlog

from hookseal.dispatcher.core.model import Claimed, Reply, Ring
from hookseal.dispatcher.core.ports import Parts
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.ledger import Chore, PostgresLedger
from hookseal.errors import CannotSign
from hookseal.ground.ids import EndpointId
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from hookseal.worker.holding import CANCEL_SECONDS, STRAY_SECONDS, Holding
from hookseal.worker.metrics.counters import WorkerMeter
from tests import rows
from tests.dispatcher.scene import attempt, take
from tests.doubles.clock import EndingClock, FakeClock
from tests.doubles.parts import parts
from tests.doubles.signers import FixedSigners
from tests.doubles.stored import Installation, begin
from tests.doubles.transport import ScriptedTransport
from tests.operations.test_probes_after_changes import Change, accept, clear, rotate
from tests.worker.figures import figures

MANY = 2_500  # more than two batches
ROUNDS = 4
IN_FLIGHT = 20
BACKLOG = 1_100  # more than one batch
FEW = 40
_PUBLISH = "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1)"


class CountingLedger(PostgresLedger):
    """Counts the claims that it makes for each tenant."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool, worker="w1", lease_seconds=45)
        self.claims: list[str] = []

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        self.claims += [each.tenant_id for each in rings]
        return await super().claim_all(rings, token, most_bytes=most_bytes)


class Site:
    """A leading worker, step by step: it rings, attempts what was rung, and looks at held endpoints."""

    def __init__(self, stored: Installation) -> None:
        self.stored = stored
        self.clock = FakeClock()
        self.meter = WorkerMeter()
        self.ledger = CountingLedger(stored.pool)
        self.signers = FixedSigners("db:acme:n:1")
        self.leads = True
        self.rung: list[Ring] = []
        self.holding = Holding(
            PostgresHeldEndpoints(stored.pool),
            self,
            held_days=7,
            clock=self.clock,
            meter=self.meter,
            log=structlog.get_logger(),
        )

    def may_have(self, _chore: Chore) -> bool:
        return True

    @property
    def parts(self) -> Parts:
        transport = ScriptedTransport(*[Reply(status=204, snippet="")] * 2, clock=self.clock)
        return parts(self.ledger, self.clock, transport=transport, signers=self.signers, meter=self.meter)

    async def deliver(self, *, at_most: int = MANY) -> int:
        """Ring what is due and unrung, attempt at most that many of the rung; return the number of rings."""
        token = await self.stored.pool.fetchval(
            "UPDATE hookseal.control SET token = gen_random_uuid(), until = now() + interval '1 h'"
            " WHERE name = 'outbox' RETURNING token::text"
        )
        more, count = True, 0
        while more:
            found = await self.ledger.ring_unrung(token, waited_seconds=0)
            self.rung += found.rings
            count += len(found.rings)
            more = found.has_more
        for ring in self.rung[:at_most]:
            taken = await take(ring, self.parts)
            if taken is not None:
                await attempt(*taken, self.parts)
        self.rung = self.rung[at_most:]
        return count

    async def look(self) -> None:
        """Look at held endpoints a second after the last time, until nothing is left to do."""
        self.clock.elapsed += 1
        while await self.holding.once():
            pass


@pytest.fixture
async def site(begun_pool: Pool) -> Site:
    """Return a worker with an endpoint of acme and one of globex."""
    stored = await begin(begun_pool)
    await stored.endpoint()
    await stored.endpoint("globex")
    return Site(stored)


@pytest.mark.req("SEC-07")
async def test_a_refused_secret_costs_one_claim_a_round(site: Site) -> None:
    """2,500 deliveries of an endpoint whose secret is refused cost one claim a probe, and no other tenant a claim.

    Those in flight at the first refusal are claimed once; after that only the probe is claimed. Events that are
    published meanwhile are neither rung nor claimed.
    """
    await site.stored.pool.execute(_PUBLISH, IN_FLIGHT)
    site.signers = FixedSigners(error=CannotSign("the record was altered"))
    assert IN_FLIGHT == await site.deliver()
    assert IN_FLIGHT == len(site.ledger.claims)
    await site.stored.pool.execute(_PUBLISH, MANY)

    for number in range(1, ROUNDS + 1):
        await site.stored.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now() + interval '5 minutes'")
        await site.look()
        assert 0 == await site.deliver(), "nothing is due before the next probe"
        await site.stored.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
        await site.look()
        assert 1 == await site.deliver()
        assert IN_FLIGHT + number == len(site.ledger.claims)
    assert MANY + IN_FLIGHT == await site.stored.pool.fetchval(
        "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = 'secret'"
    )
    assert float(ROUNDS + IN_FLIGHT) == figures(site.meter)["hookseal_held_total", "secret"]

    site.signers = FixedSigners("db:acme:n:1")
    await site.stored.deliveries("globex")
    assert 1 == await site.deliver()
    assert "globex" == site.ledger.claims[-1]


@pytest.mark.req("SEC-07")
async def test_deliveries_rung_before_a_refusal_are_claimed_once(site: Site) -> None:
    """Each delivery that was rung before the first refusal is claimed once; only the first one asks the store."""
    await site.stored.pool.execute(_PUBLISH, IN_FLIGHT)
    site.signers = FixedSigners(error=CannotSign("the record was altered"))
    await site.deliver(at_most=1)
    site.signers = FixedSigners(error=AssertionError("the store was asked"))
    await site.deliver()

    assert IN_FLIGHT == len(site.ledger.claims)
    assert IN_FLIGHT == await site.stored.pool.fetchval(
        "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = 'secret'"
    )


@pytest.mark.req("SEC-07")
async def test_an_available_secret_releases_all(site: Site) -> None:
    """When the secret is available again, the next probe is delivered, and then all others, each with one claim."""
    await site.stored.pool.execute(_PUBLISH, IN_FLIGHT)
    site.signers = FixedSigners(error=CannotSign("the store does not answer"))
    await site.deliver()
    site.signers = FixedSigners("db:acme:n:1")
    await site.stored.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
    await site.look()
    assert 1 == await site.deliver()
    with structlog.testing.capture_logs() as logs:
        await site.look()
    assert [("endpoint.released", IN_FLIGHT - 1)] == [(line["event"], line["deliveries"]) for line in logs]
    assert IN_FLIGHT - 1 == await site.deliver()

    states = await site.stored.pool.fetch("SELECT DISTINCT state FROM hookseal.deliveries")
    assert ["delivered"] == [row["state"] for row in states]
    assert 2 * IN_FLIGHT == len(site.ledger.claims)


async def forget(operator: Operator, _endpoint: EndpointId) -> object:
    """Leave deliveries that wait for a secret, without a row for their held endpoint."""
    return await operator.connection.execute("DELETE FROM hookseal.held_endpoints")


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize(("change", "backlog"), [(rotate, BACKLOG), (clear, FEW), (accept, FEW), (forget, BACKLOG)])
async def test_a_release_costs_one_claim_while_the_secret_is_refused(site: Site, change: Change, backlog: int) -> None:
    """A release of an endpoint whose secret is still refused costs one claim; when it signs, all are rung.

    Released deliveries, and waiting ones without a row for their endpoint, become due in batches. Those of a small
    backlog are also delivered.
    """
    pool = site.stored.pool
    endpoint = EndpointId(await pool.fetchval("SELECT id::text FROM hookseal.endpoints WHERE tenant_id = 'acme'"))
    async with pool.acquire() as connection:
        await rotate(site.stored.operator(connection), endpoint)
    await pool.execute(_PUBLISH, IN_FLIGHT)
    site.signers = FixedSigners(error=CannotSign("the record was altered"))
    await site.deliver()
    await pool.execute(_PUBLISH, backlog)

    async def changed() -> int:
        """Apply the change, and return the number of rings within a few seconds after it."""
        async with pool.acquire() as connection:
            await change(site.stored.operator(connection), endpoint)
        site.clock.elapsed += STRAY_SECONDS
        count = 0
        for _ in range(4):
            await site.look()
            count += await site.deliver(at_most=FEW)
        return count

    assert [1, 1] == [await changed(), await changed()]
    assert IN_FLIGHT + 2 == len(site.ledger.claims)
    assert backlog + IN_FLIGHT == await pool.fetchval(
        "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = 'secret'"
    )

    site.signers = FixedSigners("db:acme:n:1")
    assert backlog + IN_FLIGHT == await changed()
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE waiting_for IS NOT NULL")
    delivered = await pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state = 'delivered'")
    assert (backlog == FEW, backlog + IN_FLIGHT - len(site.rung)) == (site.rung == [], delivered)


@pytest.mark.req("DEL-22")
async def test_cancelled_deliveries_are_counted_and_logged(site: Site) -> None:
    """Deliveries held too long for a disabled endpoint are cancelled, counted and logged in batches, every minute."""
    pool = site.stored.pool
    await pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    await pool.execute(_PUBLISH, 1_500)
    await site.look()
    await pool.execute("UPDATE hookseal.deliveries SET held_at = now() - interval '8 days'")
    await site.look()
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state = 'cancelled'")
    site.clock.elapsed += CANCEL_SECONDS
    with structlog.testing.capture_logs() as logs:
        await site.look()

    assert [("deliveries.held_too_long", 1_000, 7), ("deliveries.held_too_long", 500, 7)] == [
        (line["event"], line["deliveries"], line["days"]) for line in logs
    ]
    assert 1_500.0 == figures(site.meter)["hookseal_held_too_long_total", None]


@pytest.mark.req("DEL-22")
async def test_cancellations_delay_no_release(site: Site) -> None:
    """However many deliveries are cancelled, those that another endpoint released become due after one batch."""
    pool = site.stored.pool
    await pool.execute("UPDATE hookseal.endpoints SET enabled = false WHERE tenant_id = 'acme'")
    await pool.execute(_PUBLISH, 2_500)
    await pool.execute("UPDATE hookseal.deliveries SET held_at = now() - interval '8 days'")
    [ring] = await site.stored.deliveries("globex")
    await pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'endpoint_disabled' WHERE id = $1::text::uuid", ring.delivery_id
    )
    left: list[int] = []

    async def look() -> bool:
        more = await site.holding.once()
        left.append(
            await pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE held_at < now() - interval '1 d'")
        )
        return more

    assert await look()
    assert [1_500] == left
    assert await look()
    assert (await site.stored.delivery(ring))["waiting_for"] is None
    while await look():
        pass
    assert 0 == left[-1]


class Ended(Exception):
    """Ends the loop of the test."""


async def test_only_the_leader_looks_at_held_endpoints(site: Site) -> None:
    await rows.hold_all(site.stored.pool, released_at=rows.NOW)
    found = []
    for site.leads in (False, True):
        site.holding.loop._clock = EndingClock(1)
        with pytest.raises(asyncio.CancelledError):
            await site.holding.loop.run()
        found.append(await site.stored.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints"))
    assert [2, 0] == found
