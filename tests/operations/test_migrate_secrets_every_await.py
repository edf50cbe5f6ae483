"""A process that migrates an endpoint, killed at every await, leaves the plaintext or the complete sealed state."""

from itertools import count

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.operations.migrate_secrets import Migration, migrate_endpoint
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.migrate_secrets import PlaintextEndpoint
from tests.doubles.legacy import SECRET, legacy, row
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.operations.every_await import Program, require_one_moment

Pool = asyncpg.Pool


async def is_migrated(installation: Installation, held: PlaintextEndpoint) -> bool:
    """Return whether everything stored shows the endpoint as migrated; fail if it disagrees."""
    stored = await row(installation.pool, held)
    versions = await installation.pool.fetch(
        "SELECT version, state FROM hookseal.secret_records WHERE name LIKE '%' || $1", held.endpoint_id
    )
    entries = [each for each in await audited(installation.pool) if each["subject"] == f"endpoint:{held.endpoint_id}"]
    assert SECRET == stored["secret"]
    [chain] = await log.verify(installation.pool, installation.unlocked.integrity, tenant=held.tenant_id)
    assert chain.broken is None
    if stored["secret_ref"] is None:
        assert ([], [], 0, None) == (versions, entries, stored["generation"], stored["mac"])
        return False
    assert [(1, "active")] == [tuple(version) for version in versions]
    assert ["secret.migrated"] == [each["action"] for each in entries]
    ref = SecretRef.parse(stored["secret_ref"])
    assert SECRET.encode() == (await installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)).reveal()
    return True


@pytest.mark.req("SEC-12")
async def test_a_migration_killed_at_any_await_can_be_repeated(installation: Installation, program: Program) -> None:
    """Killed at any await, the migration has done all or nothing, and a repeat completes it."""
    endings: list[bool] = []
    for kill_at in count(1):
        endpoint = await legacy(installation.pool, url=f"https://receiver.example/{kill_at}")
        ending = await program.run("migrate", endpoint.endpoint_id, kill_at)
        if not ending.was_killed:
            assert len(endings) == ending.places
            assert await is_migrated(installation, endpoint)
            break
        endings.append(done := await is_migrated(installation, endpoint))
        if endings.count(done) == 1:  # else what is stored is the same as after the kill before
            await require_repeatable(installation, endpoint, done=done)

    require_one_moment(endings, least=10)


async def require_repeatable(installation: Installation, held: PlaintextEndpoint, *, done: bool) -> None:
    """Fail unless a repeat completes the migration, or finds it done."""
    async with installation.pool.acquire() as connection:
        again = await migrate_endpoint(installation.operator(connection), held)
    assert (Migration.PRESENT if done else Migration.MIGRATED) is again.what
    assert await is_migrated(installation, held)
