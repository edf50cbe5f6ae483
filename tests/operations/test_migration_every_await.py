"""A process that migrates an endpoint, killed at every await: the plaintext as it was, or all of it sealed."""

import json
from asyncio.subprocess import PIPE
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.operations.migration import Migration, migrate_endpoint
from hookseal.secrets.context import Purpose
from hookseal.secrets.migration import Held
from hookseal.secrets.ref import SecretRef
from tests import forked
from tests.doubles.legacy import SECRET, legacy, row
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.operations.test_rotation_every_await import KILLED, SESSIONS, Dying
from tests.worker.waiting import eventually

ROOT = Path(__file__).parents[2]
Pool = asyncpg.Pool


async def is_migrated(installation: Installation, held: Held) -> bool:
    """Return whether everything that is stored says that it was migrated; fail unless all of it agrees."""
    stored = await row(installation.pool, held)
    versions = await installation.pool.fetch(
        "SELECT version, state FROM hookseal.secret_records WHERE name LIKE '%' || $1", held.endpoint_id
    )
    told = [each for each in await audited(installation.pool) if each["subject"] == f"endpoint:{held.endpoint_id}"]
    assert SECRET == stored["secret"]
    [chain] = await log.verify(installation.pool, installation.unlocked.integrity, tenant=held.tenant_id)
    assert chain.broken is None
    if stored["secret_ref"] is None:
        assert ([], [], 0, None) == (versions, told, stored["generation"], stored["mac"])
        return False
    assert [(1, "active")] == [tuple(version) for version in versions]
    assert ["secret.migrated"] == [each["action"] for each in told]
    ref = SecretRef.parse(stored["secret_ref"])
    assert SECRET.encode() == (await installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)).reveal()
    return True


@pytest.mark.req("SEC-12")
async def test_killed_at_every_await(installation: Installation, database_url: str) -> None:
    """Killed as it begins to wait for PostgreSQL or is answered, it did all or nothing, and goes on from there."""
    process = await forked.start(module="tests.operations.dying", stdin=PIPE, stdout=PIPE, cwd=ROOT)
    assert process.stdin is not None
    endings: list[bool] = []
    try:
        for dies_at in count(1):
            held = await legacy(installation.pool, url=f"https://receiver.example/{dies_at}")
            answer: dict[str, Any] = await Dying(process, database_url).obey("migrate", held.endpoint_id, dies_at)
            await eventually(lambda: installation.pool.fetchval(SESSIONS))
            if answer["code"] != KILLED:
                assert json.dumps({"code": 0, "count": len(endings)}) == json.dumps(answer)
                assert await is_migrated(installation, held)
                break
            endings.append(await is_migrated(installation, held))
            await goes_on(installation, held, done=endings[-1])
    finally:
        process.stdin.close()
        await process.wait()

    assert len(endings) > 20  # so many at least: each of them was tried
    assert sorted(endings) == endings  # there is one moment before which it is not done, and after which it is
    assert {False, True} == set(endings)


async def goes_on(installation: Installation, held: Held, *, done: bool) -> None:
    """Fail unless whoever runs it again finishes what was not done, and finds what was."""
    async with installation.pool.acquire() as connection:
        again = await migrate_endpoint(installation.operator(connection), held)
    assert (Migration.PRESENT if done else Migration.MIGRATED) is again.what
    assert await is_migrated(installation, held)
