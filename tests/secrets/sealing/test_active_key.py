"""The sealing key is constant within a transaction, and a change of it waits for all transactions that seal."""

import asyncio

import asyncpg
import pytest

from hookseal.errors import ConfigError, KeyUnknown, SecretUnavailable
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider, Purpose
from hookseal.secrets.key import active_key, keys
from hookseal.secrets.store.postgres import PostgresStore
from tests.secrets.key.registered import register
from tests.secrets.samples import FIRST, NAME, OTHER_SECRET, RING, SECOND, SECRET, TENANT, ref
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-05")

SIGNING = Purpose.WEBHOOK_SIGNING
WAITS = """
SELECT count(*) FROM pg_locks
 WHERE locktype = 'relation' AND relation = 'hookseal.key_lock'::regclass AND NOT granted AND database = $1
"""
OUR_DATABASE = "SELECT oid FROM pg_database WHERE datname = current_database()"


async def waiting(pool: Pool, number: int) -> None:
    """Return once that many sessions wait for the lock."""
    database = await pool.fetchval(OUR_DATABASE)

    async def look() -> bool:
        return bool(number == await pool.fetchval(WAITS, database))

    await eventually(look)


async def settled(pool: Pool) -> str:
    """Return the key that a new sealing transaction gets."""
    async with pool.acquire() as connection, connection.transaction():
        return await active_key.lock_shared(connection)


async def promoted(pool: Pool) -> None:
    """Promote the second key."""
    async with pool.acquire() as connection, connection.transaction():
        await active_key.lock_exclusive(connection)
        await keys.promote(connection, SECOND.key_id)


@pytest.fixture
async def two(pool: Pool) -> Pool:
    """Register the first key as active and the second one as staged."""
    await register(pool)
    await register(pool, SECOND, "staged")
    return pool


async def test_a_change_waits_for_running_sealings(two: Pool) -> None:
    """Many transactions seal at the same time; a change waits for all of them, and later ones get the new key."""
    async with two.acquire() as one, two.acquire() as other:
        begun = one.transaction()
        await begun.start()
        assert FIRST.key_id == await active_key.lock_shared(one)
        async with other.transaction():
            assert FIRST.key_id == await active_key.lock_shared(other)  # sealing transactions do not block each other
            change = asyncio.create_task(promoted(two))
            await waiting(two, 1)
        behind = asyncio.create_task(settled(two))
        await waiting(two, 2)
        assert FIRST.key_id == await active_key.lock_shared(one)
        await begun.commit()
        await change

    assert SECOND.key_id == await behind


async def test_a_rolled_back_change_has_no_effect(two: Pool) -> None:
    """A transaction that waited for a change that was rolled back gets the old key."""
    async with two.acquire() as connection:
        change = connection.transaction()
        await change.start()
        await active_key.lock_exclusive(connection)
        await keys.promote(connection, SECOND.key_id)
        behind = asyncio.create_task(settled(two))
        await waiting(two, 1)
        await change.rollback()

    assert FIRST.key_id == await behind


async def test_an_older_store_seals_under_the_new_key(two: Pool) -> None:
    """A store that was made before a promotion seals new versions under the new key."""
    store = PostgresStore(two, KeyRing(FIRST, (SECOND,)))
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    await promoted(two)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    await store.put(TENANT, "other", SECRET, purpose=SIGNING)

    rows = await two.fetch("SELECT key_id, wrapped_by FROM hookseal.secret_records ORDER BY name <> $1, version", NAME)
    expected = [FIRST.key_id, SECOND.key_id, SECOND.key_id]
    assert [(key_id, [key_id]) for key_id in expected] == [tuple(row) for row in rows]
    assert FIRST is store.keyring.sealing  # the key ring is unchanged; the table decides
    assert OTHER_SECRET == await PostgresStore(two, KeyRing(SECOND)).get(ref(2, Provider.DB), purpose=SIGNING)
    assert SECRET == await store.get(ref(1, Provider.DB), purpose=SIGNING)


async def test_a_store_without_the_new_key_writes_nothing(two: Pool) -> None:
    """A store without the new key refuses to seal, and no row is changed."""
    store = PostgresStore(two, RING)
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    await promoted(two)
    before = await two.fetch("SELECT * FROM hookseal.secret_records")
    with pytest.raises(KeyUnknown, match=SECOND.key_id):
        await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    with pytest.raises(KeyUnknown, match=SECOND.key_id):
        await store.put(TENANT, "other", SECRET, purpose=SIGNING)

    assert before == await two.fetch("SELECT * FROM hookseal.secret_records")


async def test_without_an_active_key_nothing_is_sealed(pool: Pool) -> None:
    """If no key is active, nothing is sealed, and the error is about the configuration."""
    await register(pool, FIRST, "decrypt_only")
    with pytest.raises(ConfigError, match="no master key is active"):
        await PostgresStore(pool, RING).put(TENANT, NAME, SECRET, purpose=SIGNING)


async def test_a_closed_connection_is_unavailable(database_url: str) -> None:
    """On a closed connection, every call raises `SecretUnavailable`."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    for asking in (active_key.lock_shared(connection), active_key.lock_exclusive(connection)):
        with pytest.raises(SecretUnavailable):
            await asking
