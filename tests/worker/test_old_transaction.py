"""What workers read while an old transaction is open: a `pg_dump`, a forgotten session, a replication slot.

Then the index entries of all that was delivered meanwhile stay, and no vacuum and no look removes them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.looks import LookStart
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.lanes.crowded import Asked
from hookseal.dispatcher.store.lanes import PostgresLanes
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.postgres.pool import Connection
from hookseal.queue.bell import Bell, bell
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.outbox import FEW_AT_ONCE, UnrungRings
from hookseal.worker.sweep import Sweep
from tests.doubles.clock import StallingClock

# Deliveries of five tenants, due ten minutes ago: stored, rung, waiting in their lane, claimed, delivered.
_SPENT: Final = [
    """
    INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, created_at, next_attempt_at)
    SELECT 't' || n % 5, hookseal.uuid7(), md5((n % 5)::text)::uuid, 'e' || n, now() - interval '1 h',
           now() - interval '10 min' + make_interval(secs => n / 1e4)
    FROM generate_series(1, {number}) AS n
    """,
    "UPDATE hookseal.deliveries SET rung_at = now() WHERE state = 'pending'",
    "UPDATE hookseal.deliveries SET rung_at = NULL, waiting_for = 'rate', held_at = now() WHERE state = 'pending'",
    """
    UPDATE hookseal.deliveries
    SET state = 'sending', next_attempt_at = NULL, waiting_for = NULL, held_at = NULL, lease_owner = 'w',
        lease_token = gen_random_uuid(), lease_expires_at = now() - interval '9 min', claimed_number = 1,
        claimed_at = now(), claimed_refs = '{{}}'
    WHERE state = 'pending'
    """,
    """
    UPDATE hookseal.deliveries
    SET state = 'delivered', finished_at = now(), lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
    WHERE state = 'sending'
    """,
]
# Those that are left: some that nobody has rung, some that were, and some in a lane; due since these were delivered.
_LEFT: Final = """
INSERT INTO hookseal.deliveries
    (tenant_id, id, endpoint_id, event_id, created_at, next_attempt_at, rung_at, waiting_for)
SELECT 't' || n % 5, hookseal.uuid7(), md5((n % 5)::text)::uuid, 'l' || n, now() - interval '1 h',
       now() - interval '8 min', CASE WHEN w = 'rung' THEN now() - interval '7 min' END,
       CASE WHEN w = 'rate' THEN w END
FROM generate_series(1, {number}) AS n, unnest(ARRAY['unrung', 'rung', 'rate']) AS w
"""
_FETCHED: Final = """
SELECT coalesce(sum(pg_stat_get_xact_blocks_fetched(oid)), 0)::integer
FROM pg_class WHERE relnamespace = 'hookseal'::regnamespace
"""
_NEWEST: Final = "SELECT max(id::text) FROM hookseal.deliveries WHERE state = 'delivered'"
_LEFT_OVER: Final = """
UPDATE hookseal.deliveries SET state = 'delivered', next_attempt_at = NULL, waiting_for = NULL WHERE state = 'pending'
"""
_MOST_RATIO: Final = 1.5  # one more level of each index
_AND_BLOCKS: Final = 60

Look = Callable[[], Awaitable[object]]


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[Bell]:
    made = bell(redis_url)
    yield made
    await made.close()


async def read(connection: Connection, look: Look) -> int:
    """Return how many blocks of hookseal's tables a look reads. Nothing that it writes stays."""
    transaction = connection.transaction()
    await transaction.start()
    before: int = await connection.fetchval(_FETCHED)
    await look()
    after: int = await connection.fetchval(_FETCHED)
    await transaction.rollback()
    return after - before


def grown(few: dict[str, int], many: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return what reads more after many deliveries than after few."""
    return {name: (few[name], many[name]) for name in few if many[name] > _MOST_RATIO * few[name] + _AND_BLOCKS}


def looks(connection: Connection, ringing: Bell, newest: str, claimed: Ring) -> dict[str, tuple[Look, StallingClock]]:
    """Return what workers repeat, each with its clock."""
    start_clock, outbox_clock, sweep_clock = [StallingClock(seconds=0.4) for _ in range(3)]
    start = LookStart(start_clock)
    ledger = PostgresLedger(connection, worker="w", lease_seconds=45)
    outbox = UnrungRings(ledger, ringing, clock=outbox_clock, turns=BacklogTurns(StallingClock(stalls=False)))
    outbox.most_standing = 10_000
    sweep = Sweep(
        ledger,
        ringing,
        seconds=60,
        clock=sweep_clock,
        turns=BacklogTurns(StallingClock(stalls=False)),
        meter=WorkerMeter(),
        log=structlog.get_logger(),
    )
    lane = [Asked(("t1", "c4ca4238-a0b9-2382-0dcc-509a6f75849b"), 5, after=newest)]

    async def standing() -> None:
        with start.look() as since:
            _, start.since = await ledger.standing(2_000, since)

    return {
        "standing": (standing, start_clock),
        "outbox": (lambda: outbox.ring(None, waited_seconds=0), outbox_clock),
        "sweep": (sweep.once, sweep_clock),
        "lane": (lambda: PostgresLanes(connection).next(lane), StallingClock()),
        "claim": (lambda: ledger.claim_all([claimed], most_bytes=2**20), StallingClock()),
    }


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize("left", [10, 2 * FEW_AT_ONCE], ids=["few", "backlog"])
async def test_a_look_reads_no_more_while_an_old_transaction_is_open(
    database_url: str, ringing: Bell, left: int
) -> None:
    """After the first, whole look each reads as much, however many deliveries were sent since the transaction began."""
    old, connection = [await asyncpg.connect(database_url) for _ in range(2)]
    await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM hookseal.deliveries")
    await connection.execute("SET session_replication_role = replica")
    whole, bounded = [], []
    for number in (1_000, 10_000):
        for statement in _SPENT:
            await connection.execute(statement.format(number=number))
        newest = await connection.fetchval(_NEWEST)
        await connection.execute(_LEFT.format(number=left))
        await connection.execute("VACUUM (ANALYZE)")
        ids = await connection.fetchrow(
            "SELECT tenant_id, endpoint_id::text, id::text FROM hookseal.deliveries WHERE rung_at IS NOT NULL LIMIT 1"
        )
        assert ids is not None
        ring = Ring(tenant_id=TenantId(ids[0]), endpoint_id=EndpointId(ids[1]), delivery_id=DeliveryId(ids[2]))
        made = looks(connection, ringing, newest, ring)
        whole.append({name: await read(connection, look) for name, (look, _) in made.items()})
        for _, clock in made.values():
            clock.stalls = False  # no whole look comes again
        await ringing.redis.flushdb()
        await read(connection, made["sweep"][0])  # the first one had no place where the next could begin
        await ringing.redis.flushdb()
        bounded.append({name: await read(connection, look) for name, (look, _) in made.items()})
        await ringing.redis.flushdb()
        await connection.execute(_LEFT_OVER)
    await old.close()
    await connection.close()

    assert left > FEW_AT_ONCE or {"outbox", "sweep"} <= grown(*whole).keys()
    assert {} == grown(*bounded)
