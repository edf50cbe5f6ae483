"""The service on a real PostgreSQL: which changes a cached version hides, and which act at the next claim."""

from dataclasses import dataclass, replace

import asyncpg
import pytest

from hookseal.errors import (
    KeyRetired,
    RecordTampered,
    SecretDestroyed,
    SecretError,
    SecretNotFound,
    SecretTampered,
    SecretUnavailable,
)
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.resolve import epoch
from tests.doubles.clock import FakeClock
from tests.doubles.stored import Installation, begin, keyring

FLIPPED = (
    "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, $1, get_byte(sealed, $1) # 1) WHERE name ~ 'endpoint'"
)
LAST_OF_THE_TAG = 226 + 50 - 1  # for a secret of 50 bytes: whsec_ and the base64 of 32 bytes


@dataclass(frozen=True, kw_only=True)
class Case:
    """An endpoint, and the secrets of a worker whose clock the test moves."""

    pool: Pool
    installation: Installation
    unlocked: Unlocked
    clock: FakeClock
    tenant: TenantId
    endpoint_id: EndpointId

    async def pointer(self) -> Pointer:
        """Return the row as the next claim reads it, with the cache epoch."""
        async with self.pool.acquire() as connection, connection.transaction():
            return await pointer.lock(connection, tenant=self.tenant, endpoint_id=self.endpoint_id)

    async def signs(self) -> bool:
        """Return whether the next claim can sign; raise the error if its secret is not available."""
        async with self.unlocked.service.signers(await self.pointer()) as signers:
            return [bool(signer.sign(b"content")) for signer in signers] == [True]

    async def refusal(self) -> type[BaseException]:
        """Return the class of the error that prevents the next claim from signing."""
        with pytest.raises((SecretError, SecretUnavailable)) as caught:
            await self.signs()
        return type(caught.value)


@pytest.fixture
async def case(pool: Pool) -> Case:
    """Return an endpoint whose secret was read once and is cached."""
    installation = await begin(pool)
    stored = (await installation.endpoint()).pointer
    clock = FakeClock()
    case = Case(
        pool=pool,
        installation=installation,
        unlocked=await unlock(pool, Provider.DB, keyring(), clock=clock),
        clock=clock,
        tenant=stored.tenant_id,
        endpoint_id=stored.endpoint_id,
    )
    assert await case.signs()
    assert 1 == case.unlocked.service.statistics().entries
    return case


@pytest.mark.req("SEC-06", part="cache")
async def test_an_altered_record_is_refused_after_the_ttl(case: Case) -> None:
    """After a record is altered, the cached secret signs until its TTL; then the record is read and refused."""
    await case.pool.execute(FLIPPED, LAST_OF_THE_TAG)
    assert await case.signs()

    case.clock.elapsed = 300.0
    assert RecordTampered is await case.refusal()
    assert RecordTampered is await case.refusal()
    figures = case.unlocked.service.statistics()
    assert (1, 3, 2, 0) == (figures.hits, figures.misses, figures.definitive_failures, figures.entries)


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_an_altered_record_is_refused_after_cache_clear(case: Case) -> None:
    """`secret cache-clear` moves the epoch, so the next claim reads the record."""
    await case.pool.execute(FLIPPED, LAST_OF_THE_TAG)
    async with case.pool.acquire() as connection:
        await epoch.move_cache(connection)

    assert RecordTampered is await case.refusal()
    await case.pool.execute(FLIPPED, LAST_OF_THE_TAG)
    assert await case.signs()


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.req("SEC-07")
async def test_a_destroyed_version_is_refused_at_the_next_claim(case: Case) -> None:
    """Destroying a version moves the cache epoch, so the next claim of every worker refuses it."""
    ref = SecretRef.parse((await case.pointer()).secret_ref or "")
    await case.installation.unlocked.store.destroy(ref)

    assert SecretDestroyed is await case.refusal()


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.parametrize("state", ["retired", "destroyed"])
async def test_records_of_a_retired_key_are_refused_at_the_next_claim(case: Case, state: str) -> None:
    """After a master key is retired or destroyed, its records are refused at the next claim, cached or not."""
    await case.pool.execute("UPDATE hookseal.secret_keys SET state = $1", state)

    assert KeyRetired is await case.refusal()


@pytest.mark.req("SEC-06", part="fail-closed")
async def test_a_cached_secret_signs_during_an_outage_until_its_ttl(case: Case) -> None:
    """During an outage of the store, a cached secret signs until its TTL, and not after it."""
    found = await case.pointer()
    await case.pool.close()
    async with case.unlocked.service.signers(found) as signers:
        assert 1 == len(signers)

    case.clock.elapsed = 300.0
    with pytest.raises(SecretUnavailable, match="provider db gave no answer within the 2 s"):
        async with case.unlocked.service.signers(found):
            pytest.fail("a secret was handed out after its TTL")


@pytest.mark.req("SEC-13", part="never-from-plaintext")
async def test_an_endpoint_with_only_a_plaintext_secret_signs_nothing(case: Case) -> None:
    """An older endpoint with a plaintext `secret` and no ref counts as having no secret."""
    before = case.unlocked.service.statistics()
    legacy = await _legacy(case, secret_ref=None)

    assert SecretNotFound is await legacy.refusal()
    assert replace(before, definitive_failures=before.definitive_failures + 1) == case.unlocked.service.statistics()


@pytest.mark.req("SEC-13", part="never-from-plaintext")
async def test_plaintext_never_replaces_an_unavailable_secret(case: Case) -> None:
    """The plaintext is never a fallback: neither if the row has no MAC nor if the version was destroyed."""
    taken = (await case.pointer()).secret_ref
    assert SecretTampered is await (await _legacy(case, secret_ref=taken)).refusal()

    await case.pool.execute("UPDATE hookseal.endpoints SET secret = 'plain-text-of-old' WHERE mac IS NOT NULL")
    assert await case.signs()
    await case.installation.unlocked.store.destroy(SecretRef.parse(taken or ""))
    assert SecretDestroyed is await case.refusal()


@pytest.mark.req("SEC-07")
async def test_a_restored_secret_signs_at_the_next_claim(case: Case) -> None:
    """Errors are not cached: once the record is restored, the next claim signs."""
    case.clock.elapsed = 300.0
    await case.pool.execute(FLIPPED, LAST_OF_THE_TAG)
    assert RecordTampered is await case.refusal()
    await case.pool.execute(FLIPPED, LAST_OF_THE_TAG)

    assert await case.signs()


async def test_a_store_may_use_its_own_pool(case: Case, database_url: str) -> None:
    """A store can use a pool of its own, as probes do, which must not wait for others."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as own:
        elsewhere = case.unlocked.store_on(own)
        await case.pool.close()

        assert 32 == len(await elsewhere.get(case.unlocked.sentinel, purpose=Purpose.SENTINEL))


async def _legacy(case: Case, *, secret_ref: str | None) -> Case:
    """Insert an endpoint as an older system wrote it, and return the case for it."""
    endpoint_id = await case.pool.fetchval(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret, secret_ref)"
        " VALUES ($1, hookseal.uuid7(), 'https://old.example/', '{*}', 'plain-text-of-old', $2) RETURNING id::text",
        case.tenant,
        secret_ref,
    )
    return replace(case, endpoint_id=EndpointId(endpoint_id))
