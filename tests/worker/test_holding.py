"""What the worker that leads does with held endpoints, by a clock that the test moves."""

from collections.abc import Sequence

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.holds import PostgresHolds
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.model import Claimed, Reply, Ring
from hookseal.dispatcher.ports import Parts
from hookseal.ground.errors import CannotSign
from hookseal.worker.holding import CANCEL_SECONDS, Holding
from hookseal.worker.meter import WorkerMeter
from tests.dispatcher.scene import attempt, take
from tests.doubles.clock import FakeClock
from tests.doubles.signers import FixedSigners
from tests.doubles.stored import Installation, begin
from tests.doubles.transport import ScriptedTransport
from tests.worker.figures import figures

Pool = asyncpg.Pool
MANY = 6_000
ROUNDS = 8
IN_FLIGHT = 20
_PUBLISH = "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1)"


class CountingLedger(PostgresLedger):
    """Counts the claims that it makes for each tenant."""

    def __init__(self, pool: "Pool[asyncpg.Record]") -> None:
        super().__init__(pool, worker="w1", lease_seconds=45)
        self.claims: list[str] = []

    async def claim_all(self, rings: Sequence[Ring], token: str | None, *, most_bytes: int) -> Claimed:
        """Count, and claim."""
        self.claims += [each.tenant_id for each in rings]
        return await super().claim_all(rings, token, most_bytes=most_bytes)


class Site:
    """A worker that leads, in steps: it rings, claims what was rung, and looks at what is held."""

    def __init__(self, stored: Installation) -> None:
        self.stored = stored
        self.clock = FakeClock()
        self.meter = WorkerMeter()
        self.ledger = CountingLedger(stored.pool)
        self.signers = FixedSigners("db:acme:n:1")
        self.leads = True
        self.rung: list[Ring] = []
        self.holding = Holding(
            PostgresHolds(stored.pool),
            lambda: self.leads,
            held_days=7,
            clock=self.clock,
            meter=self.meter,
            log=structlog.get_logger(),
        )

    @property
    def parts(self) -> Parts:
        """What its deliveries run on."""
        return Parts(
            ledger=self.ledger,
            transport=ScriptedTransport(*[Reply(status=204, snippet="")] * 2, clock=self.clock),
            signers=self.signers,
            clock=self.clock,
            jitter=lambda: 0.5,
            allow_http=False,
            user_agent="hookseal/test",
            longest_seconds=20,
            meter=self.meter,
            log=structlog.get_logger(),
        )

    async def deliver(self, *, at_most: int = MANY) -> int:
        """Ring what is due and unrung, and attempt at most so many of what was rung; return how many were rung."""
        token = await self.stored.pool.fetchval(
            "UPDATE hookseal.control SET token = gen_random_uuid(), until = now() + interval '1 h'"
            " WHERE name = 'outbox' RETURNING token::text"
        )
        more, count = True, 0
        while more:
            rings, more = await self.ledger.ring_unrung(token, waited_seconds=0)
            self.rung += rings
            count += len(rings)
        for ring in self.rung[:at_most]:
            taken = await take(ring, self.parts)
            if taken is not None:
                await attempt(*taken, self.parts)
        self.rung = self.rung[at_most:]
        return count

    async def look(self) -> None:
        """Look at what is held until nothing more is to be done, a second after the last time."""
        self.clock.elapsed += 1
        while await self.holding.once():
            pass


@pytest.fixture
async def site(pool: "Pool[asyncpg.Record]") -> Site:
    """Give a worker with an endpoint of acme and one of globex."""
    stored = await begin(pool)
    await stored.endpoint()
    await stored.endpoint("globex")
    return Site(stored)


@pytest.mark.req("SEC-07")
async def test_a_refused_secret_costs_one_claim_a_round(site: Site) -> None:
    """6,000 deliveries of an endpoint whose secret is refused cost a probe each round, and nobody else a claim.

    Those that were in flight when it was first refused are claimed once; then none is but the probe, which comes more
    and more seldom. What is published for it meanwhile is neither rung nor claimed.
    """
    await site.stored.pool.execute(_PUBLISH, IN_FLIGHT)
    site.signers = FixedSigners(error=CannotSign("the record was altered"))
    assert IN_FLIGHT == await site.deliver()
    assert IN_FLIGHT == len(site.ledger.claims)
    await site.stored.pool.execute(_PUBLISH, MANY)

    for number in range(1, ROUNDS + 1):
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
async def test_what_was_rung_before_is_not_signed_for(site: Site) -> None:
    """Of what was rung before the first refusal each is claimed once, and the store is asked for the first alone."""
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
async def test_it_goes_out_by_itself(site: Site) -> None:
    """Once the secret is back, the next probe is delivered, and then all the others, each claimed once."""
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


@pytest.mark.req("DEL-22")
async def test_too_long_is_counted_and_told(site: Site) -> None:
    """What has waited for a disabled endpoint for too long is cancelled, counted and logged, once a minute."""
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

    assert [("deliveries.held_too_long", 1_500, 7)] == [
        (line["event"], line["deliveries"], line["days"]) for line in logs
    ]
    assert 1_500.0 == figures(site.meter)["hookseal_held_too_long_total", None]


class Ended(Exception):
    """Ends a loop."""


class Turning(FakeClock):
    """Makes the worker lead at its second sleep, and ends it at its third."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site

    async def sleep(self, seconds: float) -> None:
        """Turn."""
        await super().sleep(seconds)
        self._site.leads = len(self.slept) > 1
        if len(self.slept) > 2:
            raise Ended


async def test_who_does_not_lead_does_nothing(site: Site) -> None:
    """Only the worker that leads looks; it goes on with what another one has left."""
    pool = site.stored.pool
    left = "SELECT count(*) FROM hookseal.held_endpoints"
    await pool.execute(
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, released_at)"
        " SELECT tenant_id, id, now() FROM hookseal.endpoints"
    )
    site.leads = False
    seen: list[int] = []

    def leads() -> bool:
        seen.append(len(seen))
        return site.leads

    holding = Holding(
        PostgresHolds(pool),
        leads,
        held_days=7,
        clock=Turning(site),
        meter=site.meter,
        log=structlog.get_logger(),
    )
    with pytest.raises(Ended):
        await holding.run()

    assert 0 == await pool.fetchval(left)
    assert len(seen) > 2
