"""The order holds while everything happens at once: publishers, workers, retries, replays, skips and the leader."""

import asyncio
import random
from dataclasses import dataclass, field

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Attempt, OnDeadLetter, Outcome, Ring, State, Verdict
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.errors import Conflict
from hookseal.ground.ids import DeliveryId, TenantId
from hookseal.operations.replay import replay_delivery, skip_delivery
from tests.dispatcher.test_ledger import ledger
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin

ANSWERED = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))
AGAIN = Verdict(state=State.PENDING)
ENDS = (AGAIN, AGAIN, Verdict(state=State.DELIVERED), Verdict(state=State.DELIVERED), Verdict(state=State.DEAD_LETTER))
_CLAIMED = """
SELECT d.position, (SELECT count(*) FROM hookseal.deliveries WHERE state = 'sending') AS in_flight
FROM hookseal.deliveries AS d WHERE d.id = $1::text::uuid
"""
PUBLISHED, REPLAYED, WORKERS = 15, 8, 4


@dataclass
class Race:
    """The deliveries of one ordered endpoint, which several workers claim by any ring, and what was claimed."""

    stored: Installation
    chance: random.Random
    rings: list[Ring] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    most: int = 0
    is_writing: bool = True

    async def publish(self) -> None:
        """Publish events, one after another."""
        for _ in range(PUBLISHED):
            (ring,) = await self.stored.deliveries()
            self.rings.append(ring)
            await asyncio.sleep(0)

    async def replay(self) -> None:
        """Replay what is finished, in its place or at the end, or skip what stops the line."""
        for _ in range(REPLAYED):
            await asyncio.sleep(0.01)  # others go on meanwhile
            async with self.stored.pool.acquire() as connection:
                operator = self.stored.operator(connection)
                for row in await connection.fetch(
                    "SELECT id::text, position FROM hookseal.deliveries WHERE state IN ('delivered', 'dead_letter')"
                    " ORDER BY position LIMIT 2"
                ):
                    try:
                        if row["position"] is not None and self.chance.random() < 0.5:
                            await skip_delivery(operator, DeliveryId(row["id"]))
                        else:
                            await replay_delivery(operator, DeliveryId(row["id"]), new_id=False)
                    except Conflict:  # it is on its way again
                        pass

    async def write(self) -> None:
        """Publish and replay; then let what stops the line be skipped, so that it ends."""
        await asyncio.gather(self.publish(), self.publish(), self.replay())
        await self.stored.pool.execute("UPDATE hookseal.endpoints SET on_dead_letter = 'skip'")
        self.is_writing = False

    async def work(self) -> None:
        """Claim whatever is pending, in any order, and end it in some way, until all of it has ended."""
        mine = ledger(self.stored.pool)
        while self.is_writing or await self.unfinished():
            rings = [replace(ring, is_parked=True) for ring in self.rings]
            self.chance.shuffle(rings)
            if not rings:
                await asyncio.sleep(0.01)  # nothing is published yet
                continue
            claimed = await mine.claim_all(rings, None, most_bytes=1_000_000)
            for claim in claimed.claims:
                row = await self.stored.pool.fetchrow(_CLAIMED, claim.ring.delivery_id)
                assert row is not None
                self.positions.append(row["position"])
                self.most = max(self.most, row["in_flight"])
                assert await mine.record(claim, ANSWERED, self.chance.choice(ENDS), None)
            await asyncio.sleep(0)

    async def lead(self) -> None:
        """Move lines on, as the leader does, until all has ended."""
        while self.is_writing or await self.unfinished():
            await PostgresHeldEndpoints(self.stored.pool).move_lines()
            await asyncio.sleep(0.01)

    async def unfinished(self) -> bool:
        """Return whether a delivery is in the line."""
        found: bool = await self.stored.pool.fetchval(
            "SELECT EXISTS (SELECT FROM hookseal.deliveries WHERE position IS NOT NULL)"
        )
        return found


@pytest.mark.req("DEL-17")
@pytest.mark.parametrize("seed", [1, 2])
async def test_concurrent_claims_keep_the_order(begun_pool: "asyncpg.Pool[asyncpg.Record]", seed: int) -> None:
    """One delivery is in flight at a time, and no claim has a lower position than a claim before it."""
    stored = await begin(begun_pool)
    await stored.add(
        NewEndpoint(
            tenant_id=TenantId("acme"),
            url="https://receiver.example/",
            event_types=("*",),
            ordered=True,
            on_dead_letter=OnDeadLetter.STOP,
        )
    )
    race = Race(stored, random.Random(seed))
    async with asyncio.timeout(120):
        await asyncio.gather(race.write(), race.lead(), *(race.work() for _ in range(WORKERS)))

    assert 1 == race.most
    assert sorted(race.positions) == race.positions
    assert set(race.positions) >= set(range(1, 2 * PUBLISHED + 1))
