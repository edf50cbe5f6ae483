"""What a worker does while another transaction holds the row of an endpoint with a backlog, counted in statements."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.lanes.locked import LOCKED_SECONDS
from hookseal.dispatcher.store.lanes import PostgresLanes
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.postgres.statements import statements
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.lane_keeper import LaneKeeper
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin_with_two_tenants
from tests.doubles.transport import ScriptedTransport
from tests.servers import WithoutReset
from tests.worker.test_ring_handler import OK, Scene

Pool = asyncpg.Pool
STEP_SECONDS: Final = 0.02
CLAIM: Final = statements("hookseal.dispatcher.store", "batches.sql")["claim_all"]
_BACKLOG: Final = """
WITH event AS (
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
    SELECT 'acme', 'e' || n, 'a', now(), '{}', '' FROM generate_series(1, $1) AS n RETURNING tenant_id, id
)
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at, rung_at)
SELECT event.tenant_id, hookseal.uuid7(), e.id, event.id, now(), now()
FROM event JOIN hookseal.endpoints AS e ON e.tenant_id = event.tenant_id
RETURNING tenant_id, endpoint_id::text, id::text AS delivery_id
"""


class Worker:
    """A ring handler and a lane keeper on a pool whose statements are counted, and the rings in its queue."""

    def __init__(self, pool: "Pool[asyncpg.Record]", statements: Counter[str]) -> None:
        self.statements = statements
        self.scene = Scene(slots=256)
        parts = replace(
            self.scene.handler._parts,
            ledger=PostgresLedger(pool, worker="w1", lease_seconds=45),
            transport=ScriptedTransport(*[OK] * 5_000, clock=self.scene.clock),
        )
        self.scene.handler._parts = parts
        store = PostgresLanes(pool)
        self.keeper = LaneKeeper(
            *(store, self.scene.lanes, self.scene.in_flight, parts),
            meter=self.scene.meter,
            turns=BacklogTurns(self.scene.clock),
        )
        self.queue: list[Ring] = []

    @property
    def claims(self) -> int:
        """The number of statements that claimed."""
        return self.statements[CLAIM]

    async def run(self, seconds: float) -> None:
        """Take rings, claim, send and look after the lanes as often as something can be done, for so long."""
        handler = self.scene.handler
        for _ in range(round(seconds / STEP_SECONDS)):
            for _ in range(10):
                space = handler.space
                handler.add(self.queue[:space])
                del self.queue[:space]
                await self.keeper.once(handler)
                if rings := handler._turn(self.scene.in_flight.room):
                    await handler.handle(rings)
                    assert 0 == await self.scene.in_flight.drain(5)
                elif not (space and self.queue):
                    break
            self.scene.clock.elapsed += STEP_SECONDS


@pytest.fixture
async def installation(begun_pool: "Pool[asyncpg.Record]") -> Installation:
    """Return an installation with two endpoints, of two tenants."""
    return await begin_with_two_tenants(begun_pool)


@pytest.fixture
async def worker(installation: Installation, database_url: str) -> AsyncIterator[Worker]:
    """Yield a worker."""
    counted: Counter[str] = Counter()

    class Counting(WithoutReset):
        """Counts every statement."""

        async def fetch(self, query: str, *arguments: Any, **options: Any) -> Any:
            counted.update([query])
            return await super().fetch(query, *arguments, **options)

    async with asyncpg.create_pool(database_url, min_size=1, max_size=10, connection_class=Counting) as pool:
        yield Worker(pool, counted)


async def published(installation: Installation, number: int) -> list[Ring]:
    """Publish a backlog for acme, and return its rings."""
    return [Ring(**dict(row)) for row in await installation.pool.fetch(_BACKLOG, number)]


async def delivered(installation: Installation, rings: Sequence[Ring]) -> int:
    """Return how many of these are delivered."""
    found = await installation.pool.fetch(
        "SELECT FROM hookseal.deliveries WHERE id = ANY($1::text[]::uuid[]) AND state = 'delivered'",
        [each.delivery_id for each in rings],
    )
    return len(found)


@pytest.mark.req("DEL-09")
async def test_a_locked_endpoint_costs_five_claims_a_second(installation: Installation, worker: Worker) -> None:
    """While its row is locked, 3,000 deliveries cost no more claims than one would, and none of them is left behind.

    The deliveries of another endpoint are all sent at once. When the lock is gone, all of the backlog is sent.
    """
    backlog = await published(installation, 3_000)
    others = [(await installation.deliveries("globex"))[0] for _ in range(20)]
    worker.queue = [*backlog[:2_900], *others, *backlog[2_900:]]
    with structlog.testing.capture_logs() as logs:
        async with installation.pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT FROM hookseal.endpoints WHERE tenant_id = 'acme' FOR UPDATE")
            await worker.run(1.0)
            assert len(others) == await delivered(installation, others)
            worker.statements.clear()
            await worker.run(10.0)
            assert worker.claims <= 10.0 / LOCKED_SECONDS
            assert worker.statements.total() <= 120
            assert 0 == await delivered(installation, backlog)
        await worker.run(10.0)
    assert len(backlog) == await delivered(installation, backlog)
    assert [] == [line["event"] for line in logs if line["event"] == "rings.left"]
