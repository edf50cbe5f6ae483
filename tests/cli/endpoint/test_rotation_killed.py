"""`hookseal endpoint rotate`, killed: the stored state and the file are completely the old or completely the new."""

import os
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Claim
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import EndpointId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import Signer
from tests import forked
from tests.cli.installation import Begun
from tests.operations.blocked import blocked
from tests.operations.cut_off import TABLES, content
from tests.worker.waiting import eventually

SLOW_COMMIT = """
CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON hookseal.endpoints DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION wait_here();
"""
ITS_SESSIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hookseal'
"""
ASKS = f"{ITS_SESSIONS} AND query LIKE '%d.claimed_generation < $3%'"


def options(endpoint: EndpointId, file: Path) -> tuple[str, ...]:
    """Return the arguments of a revocation, which waits after its commit."""
    named = ("--tenant", "acme", "--endpoint", endpoint, "--rotation-id", "r1", "--secret-out", str(file))
    return ("endpoint", "rotate", *named, "--overlap", "0")


@asynccontextmanager
async def rotating(begun: Begun, endpoint: EndpointId, file: Path) -> AsyncIterator[Process]:
    """Yield the command while it rotates; afterwards it is killed."""
    process = await forked.start(
        *options(endpoint, file),
        env={**os.environ, **begun.settings},
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def sessions_ended(begun: Begun) -> None:
    """Return once PostgreSQL has ended every session of the command."""

    async def none_left() -> bool:
        return bool(0 == await begun.stored.pool.fetchval(ITS_SESSIONS))

    await eventually(none_left)


async def signs_with(begun: Begun, secret: str) -> None:
    """Fail unless deliveries are signed with that secret only."""
    claim = await claimed(begun)
    assert claim.target is not None
    expected = Signer("", SecretMaterial(secret.encode()), Scheme.STANDARD, Algorithm.HMAC).sign(b"x")
    async with begun.stored.unlocked.service.signers(claim.target.pointer) as signers:
        assert [expected] == [signer.sign(b"x") for signer in signers]


def secret_in(file: Path) -> str:
    """Return the secret in the file."""
    return file.read_text(encoding="utf-8").removesuffix("\n")


async def claimed(begun: Begun) -> Claim:
    """Publish an event and claim its delivery."""
    [ring] = await begun.stored.deliveries()
    claim = await PostgresLedger(begun.stored.pool, worker="w-1", lease_seconds=45).claim(ring)
    assert claim is not None
    return claim


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize(
    "lock",
    [
        pytest.param("LOCK TABLE hookseal.endpoints IN EXCLUSIVE MODE", id="before-it-reads"),
        pytest.param("LOCK TABLE hookseal.secret_records IN SHARE MODE", id="as-it-stores-the-secret"),
        pytest.param("LOCK TABLE hookseal.endpoints IN SHARE MODE", id="as-it-moves-the-pointer"),
        pytest.param("LOCK TABLE hookseal.secret_rotations IN SHARE MODE", id="as-it-keeps-its-answer"),
        pytest.param("LOCK TABLE hookseal.audit_log IN SHARE MODE", id="as-it-tells-the-audit-log"),
    ],
)
async def test_a_kill_before_the_commit_changes_nothing(begun: Begun, tmp_path: Path, lock: str) -> None:
    """Killed before its commit it has changed nothing, and its file is of no use; run again it rotates."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    before = await content(begun.stored)
    first, second = tmp_path / "first", tmp_path / "second"
    async with begun.stored.pool.acquire() as connection, connection.transaction():
        await connection.execute(lock)
        async with rotating(begun, endpoint, first) as process:
            await blocked(begun.stored)
            assert process.returncode is None
    await sessions_ended(begun)

    assert before == await content(begun.stored)
    assert secret_in(first).startswith("whsec_")
    assert 0 == (await begun.run(*options(endpoint, second))).code
    assert secret_in(first) != secret_in(second)
    await signs_with(begun, secret_in(second))


@pytest.mark.req("SEC-09")
async def test_a_kill_during_the_commit_stores_all(begun: Begun, tmp_path: Path) -> None:
    """Killed while PostgreSQL commits, everything is stored, and its file has the signing secret."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    before = await content(begun.stored)
    await begun.stored.pool.execute(SLOW_COMMIT)
    async with begun.stored.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(1)")
        async with rotating(begun, endpoint, tmp_path / "secret"):
            await blocked(begun.stored)
            assert 1 == await begun.stored.pool.fetchval(ITS_SESSIONS)
    await sessions_ended(begun)

    await require_rotated(begun, before, tmp_path / "secret")


@pytest.mark.req("SEC-09")
async def test_a_kill_after_the_commit_stores_all(begun: Begun, tmp_path: Path) -> None:
    """Killed after its commit, while it waits for older claims, all is stored, and its file has the signing secret."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await claimed(begun)
    before = await content(begun.stored)
    async with rotating(begun, endpoint, tmp_path / "secret") as process:

        async def is_waiting() -> bool:
            return bool(await begun.stored.pool.fetchval(ASKS))

        await eventually(is_waiting)
        assert process.returncode is None
    await sessions_ended(begun)

    await require_rotated(begun, before, tmp_path / "secret")


async def require_rotated(begun: Begun, before: dict[str, list[dict[str, object]]], file: Path) -> None:
    """Fail unless every table has the rotation once, and deliveries are signed with the secret in the file."""
    after = await content(begun.stored)
    assert all(before[table] != after[table] for table in TABLES)
    assert [(2, None)] == [(row["generation"], row["previous_secret_ref"]) for row in after["endpoints"]]
    assert ["r1"] == [row["rotation_id"] for row in after["secret_rotations"]]
    assert ["secret.rotated"] == [row["action"] for row in after["audit_log"] if row not in before["audit_log"]]
    await signs_with(begun, secret_in(file))
