"""The table of master keys, and the initialisation of an installation."""

import asyncio
import os
from dataclasses import replace

import asyncpg
import pytest

from hookseal.errors import Conflict, SecretUnavailable
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.key.keys import KeyRow, KeyStatus, initialise, needed, registered, status
from hookseal.secrets.store.postgres import PostgresStore
from tests.secrets.key.registered import register, sealed_under
from tests.secrets.samples import FIRST, RING, SECOND, THIRD

pytestmark = pytest.mark.req("SEC-04", part="key-init")


async def begin(pool: Pool, keyring: KeyRing = RING) -> KeyStatus:
    """Initialise the installation of this pool."""
    async with pool.acquire() as connection:
        return await initialise(connection, keyring, PostgresStore(connection, keyring), os.urandom)


def row(key: MasterKey, *, state: str, held: bool, records: int, workers: int = 0) -> KeyRow:
    """Return the row of a key that was never moved."""
    return KeyRow(
        key_id=key.key_id,
        state=state,
        held=held,
        records=records,
        workers=workers,
        promoted_at=None,
        drained_at=None,
        compromised_at=None,
        retired_at=None,
        destroyed_at=None,
    )


async def test_the_first_key_and_secrets_are_stored(pool: Pool) -> None:
    """After initialisation the key is active with its check value, and integrity key and sentinel exist."""
    made = await begin(pool)

    assert (
        KeyStatus(
            key_id=FIRST.key_id,
            state=KeyState.ACTIVE,
            integrity_ref=SecretRef.parse("db:_system:integrity:1", reserved=True),
            sentinel_ref=SecretRef.parse("db:_system:sentinel:1", reserved=True),
        )
        == made
    )
    (key,) = await registered(pool)
    assert (FIRST.key_id, KeyState.ACTIVE, FIRST.check_value) == (key.key_id, key.state, key.check_value)


async def test_integrity_key_and_sentinel_are_random(pool: Pool) -> None:
    """Integrity key and sentinel have 32 random bytes each, sealed with their own purpose."""
    draws = [bytes([n]) * 32 for n in range(2)]
    chance = iter(draws)
    async with pool.acquire() as connection:
        store = PostgresStore(connection, RING)
        made = await initialise(connection, RING, store, lambda _: next(chance))

        assert draws == [
            (await store.get(made.integrity_ref, purpose=Purpose.INTEGRITY)).reveal(),
            (await store.get(made.sentinel_ref, purpose=Purpose.SENTINEL)).reveal(),
        ]


async def test_an_installation_begins_once(pool: Pool) -> None:
    """A second initialisation, with the same key or another, is a conflict and changes nothing."""
    await begin(pool)
    before = await pool.fetch("SELECT * FROM hookseal.secret_records ORDER BY name")
    for keyring in (RING, KeyRing(SECOND)):
        with pytest.raises(Conflict, match="were made before") as caught:
            await begin(pool, keyring)
        assert "see `hookseal key status`" == caught.value.advice

    assert before == await pool.fetch("SELECT * FROM hookseal.secret_records ORDER BY name")
    assert 1 == len(await registered(pool))


async def test_of_concurrent_beginnings_one_succeeds(pool: Pool) -> None:
    """Of five concurrent initialisations one succeeds and four are conflicts."""
    rings = [RING, KeyRing(SECOND), KeyRing(THIRD), RING, KeyRing(SECOND)]
    results = await asyncio.gather(*(begin(pool, ring) for ring in rings), return_exceptions=True)

    assert 1 == sum(isinstance(result, KeyStatus) for result in results)
    assert 4 == sum(isinstance(result, Conflict) for result in results)
    assert 1 == len(await registered(pool))


async def test_an_installation_begins_in_empty_tables_only(pool: Pool) -> None:
    """Records without registered keys, as after a partial restore, are a conflict and stay unchanged."""
    await sealed_under(pool, FIRST)
    with pytest.raises(Conflict):
        await begin(pool)

    assert () == await registered(pool)


async def test_a_failed_beginning_registers_nothing(pool: Pool) -> None:
    """Initialisation is one transaction: if the last secret cannot be made, no key is registered."""
    draws = iter([b"i" * 32, b""])
    async with pool.acquire() as connection:
        with pytest.raises(Exception, match="1 to 65536 bytes"):
            await initialise(connection, RING, PostgresStore(connection, RING), lambda _: next(draws))

    assert () == await registered(pool)
    assert () == await PostgresStore(pool, RING).versions(SYSTEM_TENANT, "integrity")


async def test_status_has_state_holding_and_records(pool: Pool) -> None:
    """Status lists each registered key with its state, whether this process has it, and the number of its records."""
    assert () == await status(pool, RING, live_seconds=15)
    await begin(pool)
    await register(pool, SECOND, "staged")
    active, staged = (
        row(FIRST, state="active", held=True, records=2),
        row(SECOND, state="staged", held=False, records=0),
    )

    assert (active, staged) == tuple(
        replace(each, promoted_at=None) for each in await status(pool, RING, live_seconds=15)
    )
    assert [False, True] == [row.held for row in await status(pool, KeyRing(SECOND), live_seconds=15)]
    assert [False, False] == [row.held for row in await status(pool, None, live_seconds=15)]


async def test_status_lists_an_unregistered_key(pool: Pool) -> None:
    """A key id that only records name is listed as unregistered."""
    await begin(pool)
    await sealed_under(pool, THIRD)

    assert row(THIRD, state="unregistered", held=False, records=1) == (await status(pool, RING, live_seconds=15))[-1]


async def test_keys_with_records_are_needed(pool: Pool) -> None:
    """Of the given key ids, those with records under them are returned."""
    await begin(pool)

    assert (FIRST.key_id,) == await needed(pool, [FIRST.key_id, SECOND.key_id])


async def test_a_closed_connection_is_unavailable(database_url: str) -> None:
    """A closed connection is `SecretUnavailable`, as in the store."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()

    for asking in (registered(connection), status(connection, None, live_seconds=15), needed(connection, [])):
        with pytest.raises(SecretUnavailable):
            await asking
