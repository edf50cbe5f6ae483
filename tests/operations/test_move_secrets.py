"""Secrets move to another provider and back: each endpoint at once, with its overlap, and nothing else changes."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import structlog

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import ConfigError, Conflict, Refused, SecretDenied, SecretUnavailable, with_advice
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint.rotation import roll_back
from hookseal.operations.key.keys import begin as begin_installation
from hookseal.operations.move_secrets import Movement, move_endpoint, move_own, require_movable
from hookseal.operations.operator import Operator
from hookseal.operations.secret import purge_batch, remove_leftovers
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.key import compromise
from hookseal.secrets.key.stores import Outside
from hookseal.worker.maintenance import PURGE_EVERY_SECONDS, REMOVAL_SECONDS, Housekeeping, HousekeepingRules
from tests.doubles.clock import FakeClock
from tests.doubles.google import GoogleSecrets
from tests.doubles.logbook import audited
from tests.doubles.providers import google_outside
from tests.doubles.stored import Installation, begin, keyring
from tests.secrets.cross_tenant_calls import TLS

pytestmark = pytest.mark.req("SEC-01", part="move")
ACME = TenantId("acme")
GCP, DB = Provider.GCP, Provider.DB
STATES = "SELECT provider, state FROM hookseal.secret_records WHERE tenant_id = 'acme' AND name = $1 ORDER BY version"


@dataclass(frozen=True)
class Scene:
    """An installation with an endpoint that has headers, a client certificate and an overlap; and a Google."""

    pool: Pool
    kept: GoogleSecrets
    outside: Outside
    endpoint_id: EndpointId

    async def unlocked(self, provider: Provider = GCP, *, has_key: bool = True) -> Unlocked:
        """Return the secrets, as a process that starts now unlocks them."""
        return await unlock(self.pool, provider, keyring() if has_key else None, outside=self.outside)

    async def moved(self, to: Provider = GCP) -> Movement:
        async with self.pool.acquire() as connection:
            operator = Operator(connection=connection, unlocked=await self.unlocked(to), who="ada@desk")
            return await move_endpoint(operator, ACME, self.endpoint_id, to)

    async def moved_own(self, to: Provider = GCP) -> list[str]:
        """Move the secrets of the installation."""
        async with self.pool.acquire() as connection:
            operator = Operator(connection=connection, unlocked=await self.unlocked(to), who="ada@desk")
            return await move_own(operator, to)

    async def pointer(self) -> Pointer:
        """Return the row of the endpoint."""
        (found,) = [found async for found in pointer.iterate(self.pool, ACME)]
        return found

    async def signatures(self, unlocked: Unlocked) -> list[object]:
        """Return what signs for the endpoint: the signatures of its signers, and its headers."""
        found = await self.pointer()
        async with unlocked.service.signers(found) as signers, unlocked.service.headers(found) as headers:
            made = [signer.sign(b"body") for signer in signers]
            return [*made, {name: value.reveal() for name, value in headers.items()}]

    async def states(self) -> list[tuple[str, str]]:
        """Return the provider and the state of every version of the signing secret."""
        return [tuple(row) for row in await self.pool.fetch(STATES, f"webhook-endpoint-{self.endpoint_id}")]


@pytest.fixture
async def scene(begun_pool: Pool) -> AsyncIterator[Scene]:
    """Yield the scene; everything is in PostgreSQL."""
    installation = await begin(begun_pool)
    new = NewEndpoint(
        tenant_id=ACME, url="https://acme.example/", event_types=("*",), settings={"rotate_every_days": 7}
    )
    added = await installation.add(new, headers={"x-own": b"value"}, tls=TLS)
    await installation.rotate(added.pointer.endpoint_id, overlap_seconds=3_600)
    async with google_outside(begun_pool) as (kept, outside):
        yield Scene(begun_pool, kept, outside, added.pointer.endpoint_id)


async def test_the_same_secrets_sign_after_a_move_and_return(scene: Scene) -> None:
    before, signs = await scene.pointer(), await scene.signatures(await scene.unlocked(DB))
    changed_at = "SELECT secret_updated_at, secret_provider FROM hookseal.endpoints"
    since = await scene.pool.fetchval(changed_at)

    assert Movement.MOVED == await scene.moved()
    there = await scene.pointer()
    assert signs == await scene.signatures(await scene.unlocked())
    assert (since, "gcp") == tuple(await scene.pool.fetchrow(changed_at) or ())
    assert [("db", "retired")] * 2 + [("gcp", "previous"), ("gcp", "active")] == await scene.states()
    refs = (there.secret_ref, there.previous_secret_ref, there.headers_ref, there.tls_ref)
    assert [True] * 4 == [str(ref).startswith("gcp:") for ref in refs]
    assert before.previous_secret_expires_at == there.previous_secret_expires_at
    assert before.generation + 1 == there.generation

    assert Movement.MOVED == await scene.moved(DB)
    back = await scene.pointer()
    assert signs == await scene.signatures(await scene.unlocked(DB))
    assert [("gcp", "retired")] * 2 + [("db", "previous"), ("db", "active")] == (await scene.states())[2:]
    assert before.previous_secret_expires_at == back.previous_secret_expires_at
    moves = [entry for entry in await audited(scene.pool) if entry["action"] == "secret.moved"]
    assert [there.secret_ref, back.secret_ref] == [entry["after"]["secret_ref"] for entry in moves]
    assert [None, keyring().sealing.key_id] == [entry["after"]["key_id"] for entry in moves]


async def test_a_moved_endpoint_is_not_moved_again(scene: Scene) -> None:
    await scene.moved()
    there, calls = await scene.pointer(), len(scene.kept.calls)

    assert Movement.PRESENT == await scene.moved()
    assert there.generation == (await scene.pointer()).generation
    assert calls == len(scene.kept.calls)
    await scene.pool.execute("DELETE FROM hookseal.endpoints")
    assert Movement.GONE == await scene.moved()


async def test_a_failed_move_leaves_the_endpoint(scene: Scene) -> None:
    signs = await scene.signatures(await scene.unlocked(DB))
    for fails_at in range(1, 9):
        calls = iter(range(100))

        async def fails(
            _: str, context: grpc.aio.ServicerContext[object, object], calls: object = calls, at: int = fails_at
        ) -> None:
            if next(calls) >= at:  # type: ignore[call-overload]
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

        scene.kept.fault = fails
        with pytest.raises(SecretUnavailable):
            await scene.moved()
        assert [("db", "previous"), ("db", "active")] == await scene.states()
    scene.kept.fault = None

    assert Movement.MOVED == await scene.moved()
    assert signs == await scene.signatures(await scene.unlocked())


async def test_an_overlap_continues_after_a_move(scene: Scene) -> None:
    await scene.moved()
    unlocked = await scene.unlocked()
    there = await scene.pointer()
    async with scene.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        after = await roll_back(operator, tenant=ACME, endpoint_id=scene.endpoint_id, overlap_seconds=60)
        assert (there.previous_secret_ref, there.secret_ref) == (after.secret_ref, after.previous_secret_ref)
        await Installation(pool=scene.pool, unlocked=unlocked).rotate(scene.endpoint_id)

    assert [("gcp", "retired"), ("gcp", "retired"), ("gcp", "active")] == (await scene.states())[2:]
    assert 2 == len(await scene.signatures(unlocked))


async def test_before_the_move_a_rotation_goes_to_the_new_provider(scene: Scene) -> None:
    unlocked = await scene.unlocked()
    async with scene.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        await roll_back(operator, tenant=ACME, endpoint_id=scene.endpoint_id, overlap_seconds=0)
    await Installation(pool=scene.pool, unlocked=unlocked).rotate(scene.endpoint_id, overlap_seconds=3_600)

    assert ("gcp", "active") == (await scene.states())[-1]
    assert 3 == len(await scene.signatures(unlocked))


async def test_a_moved_installation_starts_without_a_master_key(scene: Scene) -> None:
    signs = await scene.signatures(await scene.unlocked(DB))
    await scene.moved()
    own = await scene.moved_own()
    assert ["gcp:_system:integrity:1", "gcp:_system:sentinel:1"] == own
    assert [] == await scene.moved_own()
    with pytest.raises(ConfigError, match="secret purge --older-than 0"):
        await scene.unlocked(has_key=False)
    async with scene.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=await scene.unlocked(), who="ada@desk")
        assert 4 == await purge_batch(operator, ACME, days=0)
    unlocked = await scene.unlocked(has_key=False)

    assert unlocked.keyring is None
    assert signs == await scene.signatures(unlocked)


async def test_a_running_worker_follows_the_installation(scene: Scene) -> None:
    running = await scene.unlocked()
    await scene.moved_own()
    await running.check_sentinel()
    await running.versions.refresh()

    assert "gcp:_system:sentinel:1" == str(running.sentinel)


async def test_leftovers_at_a_provider_are_removed(scene: Scene) -> None:
    for to in (GCP, DB):
        await scene.moved(to)
        await scene.moved_own(to)
    unlocked = await scene.unlocked(DB)
    async with scene.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        await purge_batch(operator, ACME, days=0)
    removal = await remove_leftovers(scene.pool, unlocked)

    assert (None, {}) == (removal.error, scene.kept.secrets)


async def test_a_slow_provider_delays_the_other_housekeeping_by_a_bounded_time(scene: Scene) -> None:
    """A round ends after its time, and the next one goes on behind its last version, until all were tried."""
    for to in (GCP, DB):
        await scene.moved(to)
        await scene.moved_own(to)
    unlocked, clock = await scene.unlocked(DB), FakeClock()
    rules = HousekeepingRules(who="worker/w1", overlap_seconds=60, retention_days=0)
    keeper = Housekeeping(scene.pool, unlocked, lambda: True, rules=rules, clock=clock, log=structlog.get_logger())

    async def slow(_method: str, _context: grpc.aio.ServicerContext[object, object]) -> None:
        clock.elapsed += REMOVAL_SECONDS

    scene.kept.fault = slow
    left = list[int]()
    while scene.kept.secrets and len(left) < 20:
        await keeper.once()
        left.append(await scene.pool.fetchval("SELECT count(*) FROM hookseal.secret_leftovers WHERE why = 'destroyed'"))

    assert [*range(len(left) - 1, -1, -1)] == left
    assert len(left) > 1
    assert clock.elapsed < PURGE_EVERY_SECONDS


async def test_a_live_worker_without_the_provider_prevents_the_move(scene: Scene) -> None:
    await scene.pool.execute(
        "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, providers)"
        " VALUES ('old', '0', 25, 45, '{}', '{db}'), ('new', '0', 25, 45, '{}', '{db,gcp}')"
    )
    async with scene.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=await scene.unlocked(), who="ada@desk")
        with pytest.raises(Conflict, match=r"would wait: old$") as caught:
            await require_movable(operator, GCP)
        assert "SECRETS_ALSO_READ" in (caught.value.advice or "")
        await require_movable(operator, DB)
        with pytest.raises(Refused, match="does not use the provider aws"):
            await require_movable(operator, Provider.AWS)


async def test_a_process_knows_versions_that_it_cannot_read(scene: Scene) -> None:
    await scene.moved()
    unlocked = await unlock(scene.pool, DB, keyring())
    assert unlocked.stores is not None
    assert {GCP} == unlocked.stores.unreachable
    with pytest.raises(SecretDenied, match="kept by provider gcp") as refused:
        await scene.signatures(unlocked)
    assert "give it the settings of gcp" in with_advice(refused.value)
    assert frozenset() == ((await scene.unlocked()).stores or unlocked.stores).unreachable


@pytest.mark.req("SEC-05")
async def test_moved_secrets_of_a_leaked_key_are_still_reported(scene: Scene) -> None:
    await scene.moved()
    async with scene.pool.acquire() as connection:
        exposed = [each async for each in compromise.exposed(connection, keyring().sealing.key_id)]
    used = {each.used_as: each.ref.partition(":")[0] for each in exposed if each.used_as is not None}

    assert {"current": "gcp", "previous": "gcp", "headers": "gcp", "tls": "gcp"} == used


async def test_an_installation_at_a_provider_needs_no_master_key(pool: Pool) -> None:
    async with google_outside(pool) as (kept, outside), pool.acquire() as connection:
        with pytest.raises(ConfigError, match="hookseal key init"):
            await unlock(pool, GCP, None, outside=outside)
        made = await begin_installation(connection, None, "ada@desk", os.urandom, provider=GCP, outside=outside)
        unlocked = await unlock(pool, GCP, None, outside=outside)
        added = await Installation(pool=pool, unlocked=unlocked).endpoint()

        assert (None, "gcp:_system:integrity:1") == (made.key_id, str(made.integrity_ref))
        assert 3 == len(kept.secrets)
        ref = SecretRef.parse(added.pointer.secret_ref or "")
        assert added.secret == await unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
        with pytest.raises(Conflict):
            await begin_installation(connection, None, "ada@desk", os.urandom, provider=GCP, outside=outside)
        assert [] == await pool.fetch("SELECT FROM hookseal.secret_leftovers")


async def test_an_installation_moves_from_a_provider_to_postgresql(pool: Pool) -> None:
    async with google_outside(pool) as (_, outside), pool.acquire() as connection:
        await begin_installation(connection, None, "ada@desk", os.urandom, provider=GCP, outside=outside)
        added = await Installation(pool=pool, unlocked=await unlock(pool, GCP, None, outside=outside)).endpoint()
        made = await begin_installation(connection, keyring(), "ada@desk", os.urandom, outside=outside)
        assert (keyring().sealing.key_id, False) == (made.key_id, made.created)
        with pytest.raises(Conflict):
            await begin_installation(connection, keyring(), "ada@desk", os.urandom, outside=outside)
        unlocked = await unlock(pool, DB, keyring(), outside=outside)
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        assert Movement.MOVED == await move_endpoint(operator, ACME, added.pointer.endpoint_id, DB)
        assert ["db:_system:integrity:1", "db:_system:sentinel:1"] == await move_own(operator, DB)

    (found,) = [found async for found in pointer.iterate(pool, ACME)]
    alone = await unlock(pool, DB, keyring())
    ref = SecretRef.parse(found.secret_ref or "")
    assert added.secret == await alone.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
