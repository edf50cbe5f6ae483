"""A store outside PostgreSQL: how often it is asked, changes that fail half-way, and content that others changed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import grpc
import pytest

from hookseal.errors import Conflict, SecretDestroyed, SecretNotFound, SecretTampered, SecretUnavailable
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.key.keys import PAID_SECONDS, Sentinel
from hookseal.secrets.store import external as leftovers
from hookseal.secrets.store.external import ExternalStore, Removal
from hookseal.secrets.store.postgres import PostgresStore
from tests import rows
from tests.doubles.clock import FakeClock
from tests.doubles.google import GoogleSecrets
from tests.doubles.providers import OWNER, api_of, external, google_api
from tests.secrets.doubles import reader_on
from tests.secrets.samples import ENDPOINT, NAME, OTHER_SECRET, RING, SECRET, TENANT, register

SIGNING = Purpose.WEBHOOK_SIGNING
LEFTOVERS = "SELECT version, why FROM hookseal.secret_leftovers ORDER BY version"


@dataclass(frozen=True)
class Scene:
    """A store at a Google, with one version of the endpoint's secret."""

    pool: Pool
    kept: GoogleSecrets
    store: ExternalStore
    ref: SecretRef

    async def left(self) -> list[tuple[object, ...]]:
        return [tuple(row) for row in await self.pool.fetch(LEFTOVERS)]

    async def remove(self, *, after: float = 0.0) -> Removal:
        """Remove leftovers at once, as a worker does after an hour."""
        apis = {Provider.GCP: self.store.api}
        return await leftovers.remove(self.pool, apis, owner=OWNER, unsettled_seconds=after)

    async def put(self, name: str) -> SecretRef:
        return await self.store.put(TENANT, name, SECRET, purpose=SIGNING)

    async def rotate(self) -> SecretRef:
        return await self.store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)


@pytest.fixture
async def scene(pool: Pool) -> AsyncIterator[Scene]:
    async with google_api() as (kept, api):
        store = external(pool, api)
        yield Scene(pool, kept, store, await store.put(TENANT, NAME, SECRET, purpose=SIGNING))


async def test_a_successful_change_leaves_nothing_to_remove(scene: Scene) -> None:
    await scene.rotate()

    assert [] == await scene.left()
    assert Removal(removed=0) == await scene.remove()


@pytest.mark.req("SEC-15", part="secrets")
async def test_neither_postgresql_nor_the_provider_has_the_secret(scene: Scene) -> None:
    shown = repr([tuple(row) for row in await scene.pool.fetch("SELECT * FROM hookseal.secret_records")])
    there = b"".join(version for kept in scene.kept.secrets.values() for version in kept.versions)

    assert SECRET.reveal().decode() not in shown
    assert SECRET.reveal()[6:18] not in there
    assert len(SECRET) == len(there)


async def test_an_uncommitted_rotation_uses_up_its_number(scene: Scene, database_url: str) -> None:
    doomed = await asyncpg.connect(database_url)
    await doomed.transaction().start()
    abandoned = await scene.store.joined_to(doomed).rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    doomed.terminate()
    after = await scene.rotate()

    assert (2, 3) == (abandoned.version, after.version)
    assert [(2, "begun")] == await scene.left()
    with pytest.raises(SecretNotFound):
        await scene.store.get(abandoned, purpose=SIGNING)
    assert Removal(removed=0) == await scene.remove(after=60.0), "it may still be under way"
    assert Removal(removed=1) == await scene.remove()
    assert [(2, "burnt")] == await scene.left()
    assert 2 == len(scene.kept.secrets)
    assert 4 == (await scene.rotate()).version
    assert Removal(removed=0) == await scene.remove()


async def test_a_put_that_is_rolled_back_leaves_the_name_free(scene: Scene) -> None:
    async with scene.pool.acquire() as connection:
        outer = connection.transaction()
        await outer.start()
        first = await scene.store.joined_to(connection).put(TENANT, "new", SECRET, purpose=SIGNING)
        await outer.rollback()

    assert (1, 2) == (first.version, (await scene.put("new")).version)


async def test_a_lost_reply_uses_up_a_number_only(scene: Scene) -> None:
    async def lost(method: str, context: grpc.aio.ServicerContext[object, object]) -> None:
        if method == "AddSecretVersion":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")

    scene.kept.fault = lost
    before = await scene.store.versions(TENANT, NAME)
    with pytest.raises(SecretUnavailable, match="Google Secret Manager does not answer"):
        await scene.rotate()
    scene.kept.fault = None

    assert before == await scene.store.versions(TENANT, NAME)
    assert 3 == (await scene.rotate()).version


async def test_a_rotation_skips_numbers_used_at_the_provider(scene: Scene) -> None:
    for version in (2, 3):
        await scene.store.api.write(replace(scene.ref, version=version), b"later", owner=OWNER, is_first=False)

    assert 4 == (await scene.rotate()).version
    await scene.remove()
    for version in (2, 3):  # a newer copy of the database may use them
        assert b"later" == await scene.store.api.read(replace(scene.ref, version=version))


async def test_a_destroyed_version_is_removed_at_the_provider(scene: Scene) -> None:
    await scene.rotate()
    await scene.store.destroy(scene.ref)
    with pytest.raises(SecretDestroyed):
        await scene.store.get(scene.ref, purpose=SIGNING)

    assert [(1, "destroyed")] == await scene.left()
    assert Removal(removed=1) == await scene.remove()
    assert ([], 1) == (await scene.left(), len(scene.kept.secrets))


async def test_a_failed_removal_is_repeated_and_stops_no_other(scene: Scene) -> None:
    for name in ("a", "b"):
        await scene.store.destroy(await scene.put(name))
    asked: list[str] = []

    async def first_fails(method: str, context: grpc.aio.ServicerContext[object, object]) -> None:
        asked.append(method)
        if asked == ["GetSecret"]:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    scene.kept.fault = first_fails
    removal = await scene.remove()

    assert 1 == removal.removed
    assert "grant its service account secretmanager.secrets.get" in str(removal.error)
    assert Removal(removed=1) == await scene.remove()


async def test_several_workers_remove_each_version_once(scene: Scene) -> None:
    for number in range(6):
        await scene.store.destroy(await scene.put(f"n{number}"))
    removals = await asyncio.gather(scene.remove(), scene.remove(), scene.remove())

    assert 6 == sum(removal.removed for removal in removals)
    assert 6 == scene.kept.calls.count("DeleteSecret")


async def test_a_secret_changed_at_the_provider_is_refused(scene: Scene) -> None:
    (kept,) = scene.kept.secrets.values()
    kept.versions[0] = SECRET.reveal()
    with pytest.raises(SecretTampered, match="somebody changed it") as refused:
        await scene.store.get(scene.ref, purpose=SIGNING)
    assert "rotate --overlap 0" in (refused.value.advice or "")


@pytest.mark.req("SEC-08")
async def test_exchanged_secrets_are_refused(scene: Scene) -> None:
    other = await scene.put("other")
    one, two = scene.kept.secrets.values()
    one.versions, two.versions = two.versions, one.versions
    for ref in (scene.ref, other):
        with pytest.raises(SecretTampered):
            await scene.store.get(ref, purpose=SIGNING)


async def test_a_conflict_writes_nothing_to_the_provider(scene: Scene) -> None:
    asked = len(scene.kept.calls)
    with pytest.raises(Conflict):
        await scene.put(NAME)

    assert asked == len(scene.kept.calls)
    assert [] == await scene.left()


@pytest.mark.req("SEC-11")
async def test_a_restored_version_is_stale(scene: Scene) -> None:
    await rows.endpoint(scene.pool, TENANT, id=ENDPOINT, secret_ref=str(scene.ref))
    await rows.change(scene.pool, "secret_records", state="retired")
    asked = len(scene.kept.calls)
    with pytest.raises(SecretTampered, match="stale"):
        await scene.store.get(scene.ref, purpose=SIGNING)

    assert asked == len(scene.kept.calls)


async def test_a_version_keeps_its_number_when_it_moves(scene: Scene) -> None:
    await rows.secret_record(scene.pool, "n", 7, provider="aws", purpose="integrity", scheme=None)
    before = replace(scene.ref, provider=Provider.AWS, name="n", version=7)
    material = SecretMaterial(b"m" * 32)
    moved = before
    for is_kept in (False, True):
        async with scene.pool.acquire() as connection:
            outer = connection.transaction()
            await outer.start()
            store = scene.store.joined_to(connection)
            moved = await store.take_over(connection, before, material, purpose=Purpose.INTEGRITY)
            await (outer.commit() if is_kept else outer.rollback())

    assert replace(before, provider=Provider.GCP) == moved
    assert material == await scene.store.get(moved, purpose=Purpose.INTEGRITY)
    assert [(7, "destroyed")] == await scene.left(), "AWS still has it"


async def test_what_stays_at_a_provider_outlives_what_left(pool: Pool, aws_url: str) -> None:
    """At AWS all versions of a name are one secret: it stays while the previous one is in use."""
    await register(pool)
    async with api_of(Provider.AWS, aws_url) as api:
        store = external(pool, api)
        previous = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
        active = await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
        async with pool.acquire() as connection, connection.transaction():
            here = PostgresStore(connection, RING)
            await here.take_over(connection, active, OTHER_SECRET, purpose=SIGNING)

        assert Removal(removed=1) == await leftovers.remove(pool, {Provider.AWS: api}, owner=OWNER)
        assert SECRET == await store.get(previous, purpose=SIGNING)


async def test_a_version_that_returns_before_its_removal_is_used(scene: Scene) -> None:
    await register(scene.pool)
    material, here = SecretMaterial(b"m" * 32), PostgresStore(scene.pool, RING)
    ref = await here.put(TENANT, "n", material, purpose=Purpose.INTEGRITY)
    stores: tuple[ExternalStore | PostgresStore, ...] = (scene.store, here, scene.store)
    for store in stores:
        async with scene.pool.acquire() as connection, connection.transaction():
            joined = store.joined_to(connection)
            ref = await joined.take_over(connection, ref, material, purpose=Purpose.INTEGRITY)

    assert Provider.GCP is ref.provider
    assert material == await scene.store.get(ref, purpose=Purpose.INTEGRITY)
    assert [] == await scene.left()


# How often a provider that charges for each call is asked.

READ = "AccessSecretVersion"


@pytest.mark.req("SEC-01", part="calls")
async def test_a_thousand_concurrent_deliveries_cost_one_call(scene: Scene) -> None:
    """A thousand attempts at once read a secret once, and not again until its time in the cache is over."""
    kept, store, ref = scene.kept, scene.store, scene.ref
    clock = FakeClock()
    reader = reader_on(store, clock, ttl_seconds=300)

    async def attempts() -> int:
        before = kept.calls.count(READ)
        found = await asyncio.gather(*[reader.read([ref], purpose=Purpose.WEBHOOK_SIGNING) for _ in range(1_000)])
        assert [(SECRET,)] * 1_000 == found
        return kept.calls.count(READ) - before

    assert [1, 0] == [await attempts(), await attempts()]
    clock.elapsed += 299
    assert 0 == await attempts()
    clock.elapsed += 1
    assert 1 == await attempts()


@pytest.mark.req("SEC-01", part="calls")
async def test_the_sentinel_is_read_once_a_minute(scene: Scene) -> None:
    kept, store = scene.kept, scene.store
    clock = FakeClock()
    sentinel = Sentinel(await store.put(TENANT, "sentinel", SECRET, purpose=Purpose.SENTINEL), clock=clock)

    async def calls() -> int:
        before = kept.calls.count(READ)
        for _ in range(5):
            await sentinel.check(store)
        return kept.calls.count(READ) - before

    assert [1, 0] == [await calls(), await calls()]
    clock.elapsed += PAID_SECONDS

    async def away(_: str, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    kept.fault, before = away, kept.calls.count(READ)
    for _ in range(5):
        with pytest.raises(SecretUnavailable):
            await sentinel.check(store)
    assert before + 1 == kept.calls.count(READ)
    kept.fault = None
    clock.elapsed += PAID_SECONDS
    assert 1 == await calls()
