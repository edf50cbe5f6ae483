"""Unlocking at start: valid settings are arranged as the table says, and invalid ones refused before any write."""

import re
from collections.abc import Iterable

import pytest

from hookseal.errors import ConfigError, KeyRetired, SecretNotFound, SecretTampered, SecretUnavailable
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import _SQL, Unlocked, basis, unlock
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider, Purpose
from hookseal.secrets.store.dev import DevStore
from hookseal.secrets.store.postgres import PostgresStore
from hookseal.secrets.store.several import NEEDS
from tests.secrets.samples import FIRST, RING, SECOND, SECRET, THIRD, register, sealed_under
from tests.secrets.test_key import begin

pytestmark = pytest.mark.req("SEC-04", part="check-at-boot")

SIGNING = Purpose.WEBHOOK_SIGNING


@pytest.fixture
async def begun(pool: Pool) -> Pool:
    """Initialise the installation under the first key."""
    await begin(pool)
    return pool


async def _all(pool: Pool) -> list[list[tuple[object, ...]]]:
    tables = ("secret_keys", "secret_records", "endpoints")
    return [[tuple(row) for row in await pool.fetch(f"SELECT * FROM hookseal.{table}")] for table in tables]  # noqa: S608


async def _problems(pool: Pool, keyring: KeyRing | None, provider: Provider = Provider.DB) -> str:
    before = await _all(pool)
    with pytest.raises(ConfigError) as caught:
        await unlock(pool, provider, keyring)
    assert before == await _all(pool)
    assert 78 == caught.value.exit_code
    return str(caught.value)


def _named(keys: Iterable[MasterKey], text: str) -> bool:
    return all(key.key_id in text for key in keys)


async def test_an_uninitialised_installation_names_the_command(pool: Pool) -> None:
    assert "run `hookseal key init`" in await _problems(pool, RING)


async def test_the_provider_db_needs_a_master_key(begun: Pool) -> None:
    assert "SECRETS_MASTER_KEY" in await _problems(begun, None)


@pytest.mark.parametrize("provider", [Provider.AWS, Provider.GCP, Provider.OPENBAO])
async def test_a_provider_without_settings_is_refused(begun: Pool, provider: Provider) -> None:
    problems = await _problems(begun, RING, provider)
    assert problems.startswith("SECRETS_PROVIDER: ")
    assert NEEDS[provider] in problems


async def test_the_active_key_unlocks_without_a_write(begun: Pool) -> None:
    before = await _all(begun)
    unlocked = await unlock(begun, Provider.DB, RING)
    await unlocked.check_sentinel()

    assert before == await _all(begun)
    assert "1" == unlocked.integrity.key_id
    assert Provider.DB == unlocked.store.provider


async def test_a_wrong_key_is_refused_naming_both_ids(begun: Pool) -> None:
    problems = await _problems(begun, KeyRing(SECOND))

    assert _named((FIRST, SECOND), problems)
    assert "not registered" in problems
    assert "the active one" in problems


async def test_an_additional_unregistered_key_is_refused(begun: Pool) -> None:
    problems = await _problems(begun, KeyRing(FIRST, (THIRD,)))

    assert problems.startswith(f"master key {THIRD.key_id} is not registered: this installation has other keys")
    assert "remove it from the settings of this process until `hookseal key stage` has registered it" in problems
    assert "hookseal key stage" in problems


async def test_a_key_that_fails_its_check_value_is_refused(begun: Pool) -> None:
    await begun.execute("UPDATE hookseal.secret_keys SET check_value = '\\x0000000000000000'")

    assert f"master key {FIRST.key_id} fails its check value" in await _problems(begun, RING)


async def test_a_needed_older_key_must_be_configured(begun: Pool) -> None:
    await begun.execute("UPDATE hookseal.secret_keys SET state = 'decrypt_only'")
    await register(begun, SECOND, "active")

    assert f"master key {FIRST.key_id} is not among" in await _problems(begun, KeyRing(SECOND))


async def test_an_unneeded_staged_key_may_be_missing(begun: Pool) -> None:
    await register(begun, SECOND, "staged")

    assert isinstance(await unlock(begun, Provider.DB, RING), Unlocked)


async def test_a_destroyed_key_must_not_be_configured(begun: Pool) -> None:
    await register(begun, SECOND, "destroyed")

    assert f"master key {SECOND.key_id} was destroyed" in await _problems(begun, KeyRing(FIRST, (SECOND,)))
    assert isinstance(await unlock(begun, Provider.DB, RING), Unlocked)


async def test_a_configured_retired_key_opens_nothing(begun: Pool) -> None:
    await register(begun, SECOND, "retired")
    ref = await sealed_under(begun, SECOND)
    unlocked = await unlock(begun, Provider.DB, KeyRing(FIRST, (SECOND,)))

    with pytest.raises(KeyRetired):
        await unlocked.store.get(ref, purpose=SIGNING)
    await unlocked.check_sentinel()


async def test_a_table_without_an_active_key_is_refused(begun: Pool) -> None:
    await begun.execute("UPDATE hookseal.secret_keys SET state = 'decrypt_only'")

    assert "no master key is active" in await _problems(begun, RING)


@pytest.mark.parametrize("name", ["integrity", "sentinel"])
async def test_a_missing_integrity_key_or_sentinel_prevents_unlocking(begun: Pool, name: str) -> None:
    await begun.execute("UPDATE hookseal.secret_records SET sealed = sealed || '\\x00' WHERE name = $1", name)
    with pytest.raises(SecretTampered):
        await unlock(begun, Provider.DB, RING)
    await begun.execute("DELETE FROM hookseal.secret_records WHERE name = $1", name)
    with pytest.raises(SecretNotFound, match=f"_system/{name}"):
        await unlock(begun, Provider.DB, RING)


async def test_readiness_opens_the_active_sentinel(begun: Pool) -> None:
    await PostgresStore(begun, RING).rotate(SYSTEM_TENANT, "sentinel", SECRET, purpose=Purpose.SENTINEL)

    assert 2 == (await unlock(begun, Provider.DB, RING)).sentinel.version


async def test_a_silent_store_fails_the_readiness_check(begun: Pool) -> None:
    unlocked = await unlock(begun, Provider.DB, RING)
    await begun.close()

    with pytest.raises(SecretUnavailable):
        await unlocked.check_sentinel()


async def test_dev_is_refused_where_keys_are_registered(begun: Pool) -> None:
    problems = await _problems(begun, None, Provider.DEV)

    assert problems.startswith("SECRETS_PROVIDER: this installation has registered master keys")
    assert "set SECRETS_PROVIDER=db" in problems


async def test_dev_unlocks_with_keys_in_memory(pool: Pool) -> None:
    before = await _all(pool)
    one, other = await unlock(pool, Provider.DEV, None), await unlock(pool, Provider.DEV, None)
    await one.check_sentinel()

    assert before == await _all(pool)
    assert one.integrity.authenticate(b"m") != other.integrity.authenticate(b"m")
    async with pool.acquire() as connection:
        assert one.store is one.store_on(connection)
    assert isinstance(one.store, DevStore)


_CHANGES_THE_BASIS = (
    "UPDATE hookseal.secret_keys SET state = 'decrypt_only'",
    "UPDATE hookseal.secret_keys SET check_value = sha256(check_value)",
    "INSERT INTO hookseal.secret_keys (key_id, state, check_value) VALUES ('0123456789abcdef', 'staged', 'x')",
    "DELETE FROM hookseal.secret_keys",
    "UPDATE hookseal.secret_records SET sealed = sealed || 'x' WHERE name = 'integrity'",
    "UPDATE hookseal.secret_records SET sealed = sealed || 'x' WHERE name = 'sentinel'",
    "UPDATE hookseal.secret_records SET state = 'retired' WHERE name = 'integrity'",
    "UPDATE hookseal.secret_records SET purpose = 'x' WHERE name = 'sentinel'",
    "UPDATE hookseal.secret_records SET provider = 'aws', sealed = NULL WHERE name = 'sentinel'",
    "DELETE FROM hookseal.secret_records WHERE name = 'sentinel'",
    "UPDATE hookseal.secret_records SET provider = 'gcp', sealed = NULL WHERE tenant_id = 'acme'",
    "DELETE FROM hookseal.secret_records WHERE key_id IS NOT NULL",
    "UPDATE hookseal.control SET epoch = epoch + 1 WHERE name = 'cache'",
    "UPDATE hookseal.control SET epoch = epoch + 1 WHERE name = 'restore'",
    "UPDATE hookseal.control SET token = gen_random_uuid() WHERE name = 'installation'",
)
_KEEPS_THE_BASIS = (
    "UPDATE hookseal.secret_records SET state = 'retired', sealed = sealed || 'x' WHERE tenant_id = 'acme'",
    "UPDATE hookseal.control SET token = gen_random_uuid(), holder = 'w', until = now() WHERE name = 'outbox'",
    "DELETE FROM hookseal.secret_records WHERE tenant_id = 'acme'",
)


async def test_the_basis_of_unlocking_is_what_it_reads(begun: Pool) -> None:
    """It differs after a change of anything that unlocking reads, and not when endpoints and workers change."""
    await sealed_under(begun, FIRST)
    before, changed = await basis(begun), set[str]()
    async with begun.acquire() as connection:
        for statement in (*_CHANGES_THE_BASIS, *_KEEPS_THE_BASIS):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(statement)
            if before != await basis(connection):
                changed.add(statement)
            await transaction.rollback()

    assert {*_CHANGES_THE_BASIS} == changed


def test_the_basis_asks_for_every_provider_outside_postgresql() -> None:
    """None of them can be in use without being noticed."""
    [named] = re.findall(r"ARRAY\[(.*?)\]", _SQL["basis"])
    assert {*Provider} - {Provider.DB} == {Provider(name.strip(" '")) for name in named.split(",")}
