"""Moves of a master key on a real database: each is audited once, and refused while it would do harm."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import ConfigError, Conflict, KeyRetired, KeyUnknown, NotFound, Refused
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint import rotation
from hookseal.operations.endpoint.rotation import Announced, RotatedBySchedule
from hookseal.operations.key.keys import MovedKey, finish_rewrap, keyring_of, records_of
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.doubles import master_keys
from tests.doubles.logbook import audited
from tests.doubles.master_keys import (
    NEW,
    NEWER,
    OLD,
    changed,
    destroy,
    finish,
    holding,
    opened,
    promote,
    replaced,
    require_sound_log,
    retire,
    stage,
)
from tests.doubles.stored import Installation
from tests.operations.scheduling import DAY, Scheduling, scheduling
from tests.secrets.samples import master_key

pytestmark = pytest.mark.req("SEC-05")

ACME = TenantId("acme")
WORKER = """
INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, beaten_at)
VALUES ($1, '0', 25, 45, $2, now() - make_interval(secs => $3))
"""
Move = Callable[[Installation, MasterKey], Awaitable[MovedKey]]


async def worker(installation: Installation, name: str, *keys: MasterKey, seconds_ago: float = 0.0) -> None:
    """Record a heartbeat of a worker with these keys, that many seconds ago."""
    await installation.pool.execute(WORKER, name, [key.key_id for key in keys], seconds_ago)


async def log_of(installation: Installation, key: MasterKey) -> list[tuple[str, Any, Any]]:
    """Return the audit rows of the key: action, before and after."""
    rows = await audited(installation.pool, "_system")
    return [(row["action"], row["before"], row["after"]) for row in rows if row["subject"] == f"key:{key.key_id}"]


async def rows(installation: Installation) -> list[tuple[Any, ...]]:
    """Return the table of keys and the log."""
    return [
        tuple(row)
        for table in ("secret_keys", "audit_log", "secret_records")
        for row in await installation.pool.fetch(f"SELECT * FROM hookseal.{table} ORDER BY 1, 2")  # noqa: S608
    ]


async def refused(installation: Installation, move: Move, key: MasterKey, *, match: str, by: Installation) -> None:
    """Fail unless the move is a conflict with this message, and nothing changed."""
    before = await rows(installation)
    with pytest.raises(Conflict, match=match):
        await move(by, key)
    assert before == await rows(installation)


async def test_each_move_is_audited_once(installation: Installation) -> None:
    """Each move is audited once with the old and new state; repeated, it changes and audits nothing."""
    new, old = NEW.key_id, OLD.key_id
    assert [None, "staged"] == [(await stage(installation, NEW)).was for _ in range(2)]
    process = await holding(installation, OLD, NEW)
    assert ["staged", "active"] == [(await promote(process, NEW)).was for _ in range(2)]
    assert 2 == await replaced(process, OLD)
    assert 0 == await replaced(process, OLD)
    assert ["decrypt_only", "retired"] == [(await retire(process, OLD)).was for _ in range(2)]
    without = await holding(installation, NEW)
    ended = [await destroy(without, OLD) for _ in range(2)]
    assert ["retired", "destroyed"] == [move.was for move in ended]

    assert [
        ("key.staged", None, {"state": "staged"}),
        (
            "key.promoted",
            {"state": "staged", "active_key_id": old},
            {"state": "active", "active_key_id": new},
        ),
    ] == await log_of(installation, NEW)
    [rewrapped, drained, retired, destroyed] = await log_of(installation, OLD)
    assert ("key.rewrapped", None, new, 2) == (*rewrapped[:2], rewrapped[2]["to"], rewrapped[2]["records"])
    assert ("key.drained", None, {"records": 0}) == drained
    assert ("key.retired", "decrypt_only", {"state": "retired"}) == (retired[0], retired[1]["state"], retired[2])
    assert ("key.destroyed", {"state": "retired"}, {"state": "destroyed"}) == destroyed
    life = ended[0].life
    moments = [life.promoted_at, life.drained_at, life.retired_at, life.destroyed_at]
    assert all(isinstance(moment, datetime) for moment in moments)
    assert sorted(moments, key=str) == moments
    assert retired[1]["drained_at"][:19] == str(life.drained_at)[:19].replace(" ", "T")
    await require_sound_log(without)


@pytest.mark.req("SEC-04")
async def test_the_active_key_of_the_table_seals(installation: Installation) -> None:
    """The active key of the table seals, in whichever variable it is; a staged key never seals."""
    await stage(installation, NEW)
    for process in (await holding(installation, NEW, OLD), await holding(installation, OLD, NEW)):
        assert OLD.key_id == await process.unlocked.sealing_key_id(installation.pool)
    await promote(process, NEW)
    for held in ((NEW, OLD), (OLD, NEW)):
        process = await holding(installation, *held)
        added = await process.endpoint(url=f"https://receiver.example/{held[0].key_id}")
        name = f"webhook-endpoint-{added.pointer.endpoint_id}"
        assert NEW.key_id == await installation.pool.fetchval(
            "SELECT key_id FROM hookseal.secret_records WHERE name = $1", name
        )
    with pytest.raises(ConfigError, match=f"{OLD.key_id} is not among the keys of this process, and stored secrets"):
        await holding(installation, NEW)
    with pytest.raises(ConfigError, match=f"{NEW.key_id} is the active one"):
        await holding(installation, OLD)
    with pytest.raises(ConfigError, match=f"{NEWER.key_id} is not registered"):
        await holding(installation, NEW, OLD, NEWER)


@pytest.mark.req("SEC-24", part="stale")
async def test_an_older_process_seals_under_the_new_key(installation: Installation) -> None:
    """A process started before a promotion seals under the new key if it holds it, and the log names that key."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await stage(installation, NEW)
    before = await holding(installation, OLD, NEW)
    await promote(await holding(installation, NEW, OLD), NEW)
    wanted = RotationRequest(tenant_id=ACME, endpoint_id=endpoint, overlap_seconds=60, secret=generate_signing_secret())
    async with installation.pool.acquire() as connection:
        rotated = await rotation.rotate_secret(before.operator(connection), wanted)

    assert NEW.key_id == await installation.pool.fetchval(
        "SELECT key_id FROM hookseal.secret_records WHERE tenant_id = 'acme' AND version = 2"
    )
    [*_, entry] = await audited(installation.pool)
    assert ("secret.rotated", NEW.key_id) == (entry["action"], entry["after"]["key_id"])
    assert [] == await master_keys.stale_now(installation)
    [ring] = await installation.deliveries()
    claim = await PostgresLedger(installation.pool, worker="w-1", lease_seconds=45).claim(ring)
    assert claim is not None
    assert claim.target is not None
    async with before.unlocked.service.signers(claim.target.pointer) as signers:
        assert [rotated.secret_ref, rotated.previous_secret_ref] == [signer.ref for signer in signers]


@pytest.mark.req("SEC-24", part="stale")
async def test_an_older_worker_rotates_under_the_new_key(database_url: str) -> None:
    """A worker started before a promotion makes scheduled rotations under the new key, and the log names it."""
    async with scheduling(database_url) as scene:
        installation = scene.installation
        endpoint = (await scene.endpoint(days=1)).pointer.endpoint_id
        await stage(installation, NEW)
        worker = Scheduling(installation=await holding(installation, OLD, NEW))
        await promote(await holding(installation, NEW, OLD), NEW)
        await scene.pass_(DAY / 2)
        [announced] = await worker.turns()
        assert isinstance(announced, Announced)
        await scene.pass_(DAY)
        [rotated] = await worker.turns()
        assert isinstance(rotated, RotatedBySchedule)
        assert ["2", "1"] == await worker.signed_by(endpoint)

        assert [OLD.key_id, NEW.key_id] == [
            row["key_id"]
            for row in await scene.pool.fetch(
                "SELECT key_id FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY version"
            )
        ]
        [*_, entry] = await audited(scene.pool)
        assert ("secret.rotated", "worker/w1", NEW.key_id) == (entry["action"], entry["who"], entry["after"]["key_id"])
        assert [] == await master_keys.stale_now(installation)


async def test_a_process_without_the_new_key_seals_nothing(installation: Installation) -> None:
    """Such a process seals nothing and its change is rolled back; it still opens the records of its keys."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await changed(installation, OLD, NEW)
    before = await rows(installation)
    request = RotationRequest(
        tenant_id=ACME, endpoint_id=endpoint, overlap_seconds=60, secret=generate_signing_secret()
    )
    with pytest.raises(KeyUnknown, match=NEW.key_id):
        async with installation.pool.acquire() as connection:
            await rotation.rotate_secret(installation.operator(connection), request)
    with pytest.raises(KeyUnknown, match=NEW.key_id):
        await installation.endpoint(url="https://other.example/")

    assert before == await rows(installation)
    await opened(installation)


async def test_a_live_worker_without_the_key_prevents_a_promotion(installation: Installation) -> None:
    """A promotion is refused while a live worker lacks the key; workers not heard of for long do not count."""
    await stage(installation, NEW)
    process = await holding(installation, OLD, NEW)
    await worker(installation, "w-with", OLD, NEW)
    await worker(installation, "w-lost", OLD, seconds_ago=3_600)
    await worker(installation, "w-without", OLD)
    await refused(installation, promote, NEW, match=r"1 live worker.*: w-without: start them again", by=process)
    await installation.pool.execute("DELETE FROM hookseal.workers WHERE id = 'w-without'")

    assert KeyState.STAGED is (await promote(process, NEW)).was


async def test_only_a_held_key_is_promoted(installation: Installation) -> None:
    """A process can promote only a key that it holds, since the key might otherwise be lost."""
    await stage(installation, NEW)
    with pytest.raises(Refused, match="SECRETS_MASTER_KEY_NEXT"):
        await promote(installation, NEW)


async def test_a_promotion_can_be_reversed(installation: Installation) -> None:
    """Promoting the older key again reverses a promotion, and its first promotion time stays on record."""
    before = await installation.pool.fetchval("SELECT promoted_at FROM hookseal.secret_keys")
    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)
    moved = await promote(process, OLD)

    assert (KeyState.DECRYPT_ONLY, KeyState.ACTIVE) == (moved.was, moved.life.state)
    assert (before, None) == (moved.life.promoted_at, moved.life.drained_at)
    assert 2 == await replaced(process, NEW)


@pytest.mark.req("SEC-22")
async def test_a_compromised_key_never_seals_again(installation: Installation) -> None:
    """A key that is marked as compromised can be neither promoted nor staged."""
    await stage(installation, NEWER)
    process = await changed(installation, OLD, NEWER, NEW)
    await installation.pool.execute("UPDATE hookseal.secret_keys SET compromised_at = now() WHERE state <> 'active'")
    for key in (OLD, NEWER):
        await refused(installation, promote, key, match="is compromised: it never seals again", by=process)
    await refused(installation, stage, NEWER, match="is compromised, so it cannot be the next one", by=process)


async def test_a_needed_key_is_not_retired(installation: Installation) -> None:
    """A needed key is not retired; the error has the number of records and held deliveries that need it."""
    await installation.endpoint()
    await installation.endpoint("bmce")
    await installation.deliveries()
    process = await changed(installation, OLD, NEW)
    before = await rows(installation)
    with pytest.raises(Conflict) as caught:
        await retire(process, OLD)
    needed = f"4 records are sealed under master key {OLD.key_id}, and 1 pending delivery needs them"
    assert (needed, f"run `hookseal key rewrap {OLD.key_id}` first") == (str(caught.value), caught.value.advice)
    assert before == await rows(installation)
    async with installation.pool.acquire() as connection:
        assert 4 == await records_of(process.operator(connection), OLD.key_id)
        assert 4 == (await finish_rewrap(process.operator(connection), OLD.key_id)).records
    assert before == await rows(installation)


async def test_a_retired_key_opens_nothing(installation: Installation) -> None:
    """A retired key opens nothing, also in older processes, and can then only be destroyed."""
    await installation.pool.execute(master_keys.KEEP)
    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)
    await retire(process, OLD)
    for move, match in ((stage, "is retired already"), (promote, "stage a new one")):
        await refused(installation, move, OLD, match=match, by=process)
    await installation.pool.execute(master_keys.PUT_BACK)

    with pytest.raises(KeyRetired, match=OLD.key_id):
        await opened(process)
    with pytest.raises(KeyRetired):
        await holding(installation, NEW, OLD)


async def test_a_staged_key_can_be_retired(installation: Installation) -> None:
    """A staged key can be retired and then destroyed."""
    moved = await stage(installation, NEW)
    assert moved.life.promoted_at is None
    assert KeyState.STAGED is (await retire(installation, NEW)).was
    assert KeyState.RETIRED is (await destroy(installation, NEW)).was


async def test_a_held_key_is_not_destroyed(installation: Installation) -> None:
    """A key is not destroyed while this process or a live worker holds it and would fail at its next start."""
    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)
    without = await holding(installation, NEW)
    await refused(installation, destroy, OLD, match="is decrypt_only: retire it first", by=without)
    await retire(process, OLD)
    await refused(installation, destroy, OLD, match="this process holds", by=process)
    await worker(installation, "w-with", NEW, OLD)
    await worker(installation, "w-lost", NEW, OLD, seconds_ago=3_600)
    await refused(installation, destroy, OLD, match="1 live worker.*: w-with: take it out", by=without)
    await installation.pool.execute("DELETE FROM hookseal.workers WHERE id = 'w-with'")

    assert KeyState.DESTROYED is (await destroy(without, OLD)).life.state
    with pytest.raises(ConfigError, match=f"{OLD.key_id} was destroyed: take it out of the settings"):
        await holding(installation, NEW, OLD)


@pytest.mark.req("SEC-06")
async def test_retiring_and_destroying_clear_the_caches(installation: Installation) -> None:
    """Retiring and destroying a key each clear the caches of all workers."""

    async def epoch() -> int:
        number: int = await installation.pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
        return number

    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)
    assert 0 == await epoch()  # a re-wrap changes no secret
    await retire(process, OLD)
    assert 1 == await epoch()
    await destroy(await holding(installation, NEW), OLD)
    assert 2 == await epoch()


@pytest.mark.parametrize("move", [promote, retire, destroy, finish, master_keys.batch])
async def test_an_unregistered_key_is_not_found(
    installation: Installation, move: Callable[..., Awaitable[Any]]
) -> None:
    """An unregistered key is not found, and the error names the command that lists keys."""
    with pytest.raises(NotFound) as caught:
        await move(installation, master_key("nobody's"))
    assert ("key_id", "see `hookseal key status`") == (caught.value.field, caught.value.advice)


async def test_without_its_audit_row_no_key_moves(installation: Installation) -> None:
    """If the log of the installation refuses rows, no key is moved."""
    process = await changed(installation, OLD, NEW)
    await installation.pool.execute("ALTER TABLE hookseal.audit_log ADD CHECK (sequence <= 2)")
    before = await rows(installation)
    for move, key in ((stage, NEWER), (promote, OLD), (master_keys.batch, OLD)):
        with pytest.raises(Exception, match="check"):
            await move(process, key)
        assert before == await rows(installation)


async def test_dev_has_no_master_keys(pool: Pool) -> None:
    """With a provider without master keys, a move is refused."""
    unlocked = await unlock(pool, Provider.DEV, None)
    async with pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        with pytest.raises(Refused, match="has no master keys"):
            keyring_of(operator)
