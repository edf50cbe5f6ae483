"""A claim while its rows are being changed: what it waits for, and what it then reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Claimed, FinishedAttempt, Recorded
from hookseal.dispatcher.store import ledger as batches
from hookseal.dispatcher.store.held import older_claims
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Busy
from hookseal.ground.pointer import Pointer
from hookseal.postgres.pool import Connection
from hookseal.secrets.endpoint import pointer
from tests.dispatcher.test_ledger import DELIVERED, ROW, ledger
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin

Pool = asyncpg.Pool
pytestmark = pytest.mark.usefixtures("begun_pool")


@pytest.fixture
def paused_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both claim statements wait for advisory lock 7 after the snapshot is taken; they are otherwise unchanged."""
    condition = "WHERE d.endpoint_id IS NOT DISTINCT"
    waits = condition.replace("WHERE", "WHERE pg_advisory_xact_lock_shared(7) IS NOT NULL AND")
    for name in ("claim_one", "claim_all"):
        real = batches._BATCHES[name]
        assert condition in real
        monkeypatch.setitem(batches._BATCHES._texts, name, real.replace(condition, waits))


@pytest.fixture
def paused_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the statement that records a batch wait in the same way."""
    condition = "WHERE d.lease_token IS NOT DISTINCT"
    real = batches._BATCHES["record_all"]
    assert condition in real
    waits = condition.replace("WHERE", "WHERE pg_advisory_xact_lock_shared(7) IS NOT NULL AND")
    monkeypatch.setitem(batches._BATCHES._texts, "record_all", real.replace(condition, waits))


async def wait_for_a_blocked_connection(pool: "Pool[asyncpg.Record]") -> None:
    """Return once a connection to this database waits for a lock."""
    async with asyncio.timeout(60):
        while not await pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock')"
        ):
            pass


@asynccontextmanager
async def move_pointer(installation: Installation, found: Pointer, **changes: Any) -> AsyncIterator[Pointer]:
    """Yield the moved pointer; the transaction that moves it is committed after the block."""
    async with installation.pool.acquire() as mover, mover.transaction():
        locked = await pointer.lock(mover, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
        if "previous_secret_ref" in changes:
            changes["previous_secret_expires_at"] = await pointer.time_after(mover, 3600)
        yield await pointer.move(
            mover, installation.unlocked.integrity, locked, secret_ref=f"{str(found.secret_ref)[:-1]}2", **changes
        )


async def count_older_claims(connection: Connection, moved: Pointer) -> int:
    """Return how many running claims read the pointer before this move."""
    return await older_claims(connection, moved.tenant_id, moved.endpoint_id, moved.generation)


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("overlap", [False, True])
async def test_a_claim_reads_a_rotation_committed_after_its_snapshot(
    paused_claims: None, pool: "Pool[asyncpg.Record]", number: int, *, overlap: bool
) -> None:
    """A claim with a snapshot from before a rotation's commit still gets the new refs, generation and MAC."""
    installation = await begin(pool)
    found = (await installation.endpoint()).pointer
    rings = [(await installation.deliveries())[0] for _ in range(number)]
    kept = {"previous_secret_ref": found.secret_ref, "previous_scheme": "standard", "previous_algorithm": "hmac"}
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(7)")
        claiming = asyncio.create_task(ledger(pool).claim_all(rings, None, most_bytes=1_000_000))
        await wait_for_a_blocked_connection(pool)  # the claim has taken its snapshot
        async with move_pointer(installation, found, **(kept if overlap else {})) as moved:
            pass
    claims = (await claiming).claims

    assert number == len(claims)
    assert claims[0].target is not None
    read = claims[0].target.pointer
    elsewhere: dict[str, Any] = {"cache_epoch": read.cache_epoch, "read_at": read.read_at, "database": read.database}
    assert replace(moved, previous_due=overlap, **elsewhere) == read
    row = await installation.delivery(rings[0])
    assert (2, [moved.secret_ref, found.secret_ref] if overlap else [moved.secret_ref]) == (
        row["claimed_generation"],
        row["claimed_refs"],
    )
    async with pool.acquire() as connection:
        assert 0 == await count_older_claims(connection, moved), "the claim counts as older than the move"


@pytest.mark.req("SEC-10")
async def test_a_rotation_waits_for_an_uncommitted_claim_and_counts_it(pool: "Pool[asyncpg.Record]") -> None:
    """A move waits until a claim that read the pointer is committed, and then counts it as an older claim."""
    installation = await begin(pool)
    found = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()

    async def move() -> Pointer:
        async with move_pointer(installation, found) as moved:
            pass
        return moved

    async with pool.acquire() as claimer:
        async with claimer.transaction():
            claim = await PostgresLedger(claimer, worker="w1", lease_seconds=45).claim(ring)
            task = asyncio.create_task(move())
            await wait_for_a_blocked_connection(pool)
        moved = await task
        assert claim is not None
        assert claim.target is not None
        assert (found.secret_ref, 1) == (claim.target.pointer.secret_ref, await count_older_claims(claimer, moved))


@pytest.mark.req("SEC-10")
async def test_an_older_claim_counts_until_it_is_recorded(pool: "Pool[asyncpg.Record]") -> None:
    """A claim from before a revocation counts as older while its lease runs, and no longer once it is recorded."""
    installation = await begin(pool)
    found = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()
    claim = await ledger(pool).claim(ring)
    assert claim is not None
    async with move_pointer(installation, found) as moved:
        pass

    row = await installation.delivery(ring)
    assert ("sending", 1) == (row["state"], row["claimed_generation"])
    assert await pool.fetchval("SELECT lease_expires_at > now() FROM hookseal.deliveries")
    async with pool.acquire() as connection:
        assert 1 == await count_older_claims(connection, moved)
        assert await ledger(pool).record(claim, ROW, DELIVERED, None)
        assert 0 == await count_older_claims(connection, moved)


@pytest.mark.req("SEC-10")
async def test_a_dead_workers_claim_counts_until_its_lease_expires(pool: "Pool[asyncpg.Record]") -> None:
    """An expired lease does not delay a revocation, because its worker may no longer send."""
    installation = await begin(pool)
    found = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()
    await ledger(pool, lease_seconds=0).claim(ring)
    async with move_pointer(installation, found) as moved:
        pass

    async with pool.acquire() as connection:
        assert 0 == await count_older_claims(connection, moved)


@pytest.mark.req("SEC-10")
async def test_a_claim_does_not_wait_for_a_locked_endpoint(pool: "Pool[asyncpg.Record]") -> None:
    """While an endpoint is being changed, a claim of its delivery is refused at once; afterwards it succeeds."""
    installation = await begin(pool)
    found = (await installation.endpoint()).pointer
    [ring] = await installation.deliveries()
    async with move_pointer(installation, found) as moved:
        with pytest.raises(Busy, match="being changed"):
            await ledger(pool).claim(ring)
        assert "pending" == (await installation.delivery(ring))["state"]
    claim = await ledger(pool).claim(ring)

    assert claim is not None
    assert claim.target is not None
    assert moved.secret_ref == claim.target.pointer.secret_ref


@pytest.mark.parametrize("number", [1, 2])
async def test_a_claim_beside_a_deletion_has_no_target(
    paused_claims: None, pool: "Pool[asyncpg.Record]", number: int
) -> None:
    """If its endpoint was deleted after its snapshot, a claim is locked out; the next one has no target.

    The claim of one delivery makes that next one by itself.
    """
    installation = await begin(pool)
    await installation.endpoint()
    rings = [(await installation.deliveries())[0] for _ in range(number)]
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(7)")
        claiming = asyncio.create_task(ledger(pool).claim_all(rings, None, most_bytes=1_000_000))
        await wait_for_a_blocked_connection(pool)
        await pool.execute("DELETE FROM hookseal.endpoints")
    claimed = await claiming
    if number > 1:
        assert Claimed(claims=[], busy=[], locked=rings) == claimed
        claimed = await ledger(pool).claim_all(rings, None, most_bytes=1_000_000)

    assert [None] * number == [claim.target for claim in claimed.claims]


async def test_a_batch_leaves_out_an_outcome_whose_delivery_has_changed(
    paused_records: None, pool: "Pool[asyncpg.Record]"
) -> None:
    """If a row changes after its snapshot, a batch records the other outcomes. The next batch records that one."""
    installation = await begin(pool)
    await installation.endpoint()
    rings = [(await installation.deliveries())[0] for _ in range(2)]
    claimed = await ledger(pool).claim_all(rings, None, most_bytes=1_000_000)
    made = [FinishedAttempt(claim=each, attempt=ROW, verdict=DELIVERED, error=None) for each in claimed.claims]
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(7)")
        recording = asyncio.create_task(ledger(pool).record_all(made))
        await wait_for_a_blocked_connection(pool)
        changed = made[0].claim.ring.delivery_id
        await pool.execute(
            "UPDATE hookseal.deliveries SET lease_expires_at = lease_expires_at + interval '1 s' WHERE id = $1", changed
        )

    assert [Recorded.BUSY, Recorded.STORED] == await recording
    assert [Recorded.STORED] == await ledger(pool).record_all(made[:1])


async def test_a_claim_does_not_wait_for_a_locked_delivery(pool: "Pool[asyncpg.Record]") -> None:
    """A claim of a locked delivery is busy at once; after the lock is released, it succeeds."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries FOR UPDATE")
        with pytest.raises(Busy):
            await ledger(pool).claim(ring)

    assert await ledger(pool).claim(ring) is not None


@pytest.mark.req("SEC-10")
@pytest.mark.req("DEL-03")
async def test_the_databases_clock_decides_the_end_of_an_overlap(pool: "Pool[asyncpg.Record]") -> None:
    """The previous secret is due, and its ref is claimed, until its expiry by the database's clock."""
    installation = await begin(pool)
    found = (await installation.endpoint()).pointer
    previous = "db:acme:old:1"
    read: list[tuple[bool, str | None, list[str]]] = []
    for expiry in ("1 hour", "10 seconds", "-1 second", "-1 hour"):
        await pool.execute(
            "UPDATE hookseal.endpoints SET previous_secret_ref = $1, previous_scheme = 'x-webhook',"
            " previous_algorithm = 'hmac', previous_secret_expires_at = now() + $2::text::interval",
            previous,
            expiry,
        )
        [ring] = await installation.deliveries()
        claim = await ledger(pool).claim(ring)
        assert claim is not None
        assert claim.target is not None
        stored = (await installation.delivery(ring))["claimed_refs"]
        read.append((claim.target.pointer.previous_due, claim.target.pointer.previous_scheme, stored))

    assert [
        (True, "x-webhook", [found.secret_ref, previous]),
        (True, "x-webhook", [found.secret_ref, previous]),
        (False, "x-webhook", [found.secret_ref]),
        (False, "x-webhook", [found.secret_ref]),
    ] == read


async def test_a_claim_contains_the_cache_epoch(pool: "Pool[asyncpg.Record]") -> None:
    """A claim contains the current cache epoch, so that a worker discards what it cached under an older one."""
    installation = await begin(pool)
    await installation.endpoint()
    epochs = []
    for _ in range(2):
        await pool.execute("UPDATE hookseal.control SET epoch = epoch + 1 WHERE name = 'cache'")
        [ring] = await installation.deliveries()
        claim = await ledger(pool).claim(ring)
        assert claim is not None
        assert claim.target is not None
        epochs.append(claim.target.pointer.cache_epoch)

    assert 1 == epochs[1] - epochs[0]
    assert epochs[1] == await pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
