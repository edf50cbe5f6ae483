"""Which key seals is one answer for a whole transaction, and who changes it waits for everybody who sealed by it."""

import asyncio

import asyncpg
import pytest

from hookseal.ground.errors import ConfigError
from hookseal.schema.database import Pool
from hookseal.secrets import active_key, key_moves
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import KeyUnknown, SecretUnavailable
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.ref import Provider
from hookseal.secrets.stores.postgres import PostgresStore
from tests.secrets.registered import register
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
    """Return once so many wait for the lock."""
    database = await pool.fetchval(OUR_DATABASE)

    async def look() -> bool:
        return bool(number == await pool.fetchval(WAITS, database))

    await eventually(look)


async def settled(pool: Pool) -> str:
    """Return the key that seals, as one who is about to seal is told it."""
    async with pool.acquire() as connection, connection.transaction():
        return await active_key.settled(connection)


async def promoted(pool: Pool) -> None:
    """Have the second key take the place of the first."""
    async with pool.acquire() as connection, connection.transaction():
        await active_key.hold(connection)
        await key_moves.promote(connection, SECOND.key_id)


@pytest.fixture
async def two(pool: Pool) -> Pool:
    """A database in which the first key is active and the second one staged."""
    await register(pool)
    await register(pool, SECOND, "staged")
    return pool


async def test_who_seals_is_waited_for(two: Pool) -> None:
    """Many seal at once; a change waits for the last of them, and who comes behind it is told the new key."""
    async with two.acquire() as one, two.acquire() as other:
        begun = one.transaction()
        await begun.start()
        assert FIRST.key_id == await active_key.settled(one)
        async with other.transaction():
            assert FIRST.key_id == await active_key.settled(other)  # who seals waits for nobody else who does
            change = asyncio.create_task(promoted(two))
            await waiting(two, 1)
        behind = asyncio.create_task(settled(two))
        await waiting(two, 2)
        assert FIRST.key_id == await active_key.settled(one)
        await begun.commit()
        await change

    assert SECOND.key_id == await behind


async def test_a_change_that_is_undone_was_none(two: Pool) -> None:
    """Who waited for a change that rolled back is told the key that still is the active one."""
    async with two.acquire() as connection:
        change = connection.transaction()
        await change.start()
        await active_key.hold(connection)
        await key_moves.promote(connection, SECOND.key_id)
        behind = asyncio.create_task(settled(two))
        await waiting(two, 1)
        await change.rollback()

    assert FIRST.key_id == await behind


async def test_a_store_from_before_seals_under_the_new_key(two: Pool) -> None:
    """Its ring was arranged when the older key was active: what it puts and rotates now is under the new one."""
    store = PostgresStore(two, KeyRing(FIRST, (SECOND,)))
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    await promoted(two)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    await store.put(TENANT, "other", SECRET, purpose=SIGNING)

    rows = await two.fetch("SELECT key_id, wrapped_by FROM hookseal.secret_records ORDER BY name <> $1, version", NAME)
    expected = [FIRST.key_id, SECOND.key_id, SECOND.key_id]
    assert [(key_id, [key_id]) for key_id in expected] == [tuple(row) for row in rows]
    assert FIRST is store.keyring.sealing  # what was arranged stays; asked is the table
    assert OTHER_SECRET == await PostgresStore(two, KeyRing(SECOND)).get(ref(2, Provider.DB), purpose=SIGNING)
    assert SECRET == await store.get(ref(1, Provider.DB), purpose=SIGNING)


async def test_a_store_that_lacks_the_new_key_writes_nothing(two: Pool) -> None:
    """It refuses to seal, and no version and no state moved."""
    store = PostgresStore(two, RING)
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    await promoted(two)
    before = await two.fetch("SELECT * FROM hookseal.secret_records")
    with pytest.raises(KeyUnknown, match=SECOND.key_id):
        await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    with pytest.raises(KeyUnknown, match=SECOND.key_id):
        await store.put(TENANT, "other", SECRET, purpose=SIGNING)

    assert before == await two.fetch("SELECT * FROM hookseal.secret_records")


async def test_no_active_key(pool: Pool) -> None:
    """Where none is active nothing is sealed: the settings do not fit the table."""
    await register(pool, FIRST, "decrypt_only")
    with pytest.raises(ConfigError, match="no master key is active"):
        await PostgresStore(pool, RING).put(TENANT, NAME, SECRET, purpose=SIGNING)


async def test_an_outage(database_url: str) -> None:
    """A connection that was cut is an outage, whatever was asked."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    for asking in (active_key.settled(connection), active_key.hold(connection)):
        with pytest.raises(SecretUnavailable):
            await asking
