"""Moves of master and integrity keys on a real database: audited once, refused while they would do harm."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Self

import pytest

from hookseal.audit import log
from hookseal.audit.log import verify
from hookseal.errors import ConfigError, Conflict, KeyRetired, KeyUnknown, NotFound, Refused
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.key.keys import (
    CompromiseOptions,
    MovedKey,
    begin,
    drill,
    finish_rewrap,
    keyring_of,
    records_of,
    rotate_integrity_key,
)
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key import active_key
from hookseal.secrets.key import keys as key_moves
from hookseal.secrets.key.keys import KeyStatus
from tests import rows
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
    stale_now,
    under,
)
from tests.doubles.stored import Installation, keyring
from tests.operations.blocked import blocked
from tests.secrets.samples import SECOND, master_key, register
from tests.worker.waiting import eventually


async def begun(pool: Pool) -> KeyStatus:
    """Begin on its own connection."""
    async with pool.acquire() as connection:
        return await begin(connection, keyring(), "ada@desk", os.urandom)


@pytest.mark.req("OPS-10")
async def test_the_first_audit_row_names_the_master_key(pool: Pool) -> None:
    made = await begun(pool)

    assert [
        {
            "action": "key.initialised",
            "subject": f"key:{made.key_id}",
            "who": "ada@desk",
            "before": None,
            "after": {
                "key_id": made.key_id,
                "state": "active",
                "integrity_ref": "db:_system:integrity:1",
                "sentinel_ref": "db:_system:sentinel:1",
            },
        }
    ] == await audited(pool, "_system")
    (result,) = await verify(pool, (await unlock(pool, Provider.DB, keyring())).integrity)
    assert (1, None) == (result.rows, result.broken)


async def test_of_concurrent_beginnings_one_succeeds(pool: Pool) -> None:
    ended = await asyncio.gather(*(begun(pool) for _ in range(4)), return_exceptions=True)

    assert 3 == len([each for each in ended if isinstance(each, Conflict)])
    assert 1 == len(await audited(pool, "_system"))


ACME = TenantId("acme")
Move = Callable[[Installation, MasterKey], Awaitable[MovedKey]]


async def worker(installation: Installation, name: str, *keys: MasterKey, seconds_ago: float = 0.0) -> None:
    """Record a heartbeat of a worker with these keys, that many seconds ago."""
    beaten_at = rows.ago(seconds=seconds_ago)
    await rows.worker(installation.pool, name, key_ids=[key.key_id for key in keys], beaten_at=beaten_at)


async def log_of(installation: Installation, key: MasterKey) -> list[tuple[str, Any, Any]]:
    """Return the audit rows of the key: action, before and after."""
    found = await audited(installation.pool, "_system")
    return [(row["action"], row["before"], row["after"]) for row in found if row["subject"] == f"key:{key.key_id}"]


async def kept(installation: Installation) -> list[tuple[Any, ...]]:
    """Return the table of keys and the log."""
    return [
        tuple(row)
        for table in ("secret_keys", "audit_log", "secret_records")
        for row in await installation.pool.fetch(f"SELECT * FROM hookseal.{table} ORDER BY 1, 2")  # noqa: S608
    ]


# Moves of a master key on a real database: each is audited once, and refused while it would do harm.


async def refused(installation: Installation, move: Move, key: MasterKey, *, match: str, by: Installation) -> None:
    """Fail unless the move is a conflict with this message, and nothing changed."""
    before = await kept(installation)
    with pytest.raises(Conflict, match=match):
        await move(by, key)
    assert before == await kept(installation)


@pytest.mark.req("SEC-05")
async def test_each_move_is_audited_once(installation: Installation) -> None:
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
        ("key.promoted", {"state": "staged", "active_key_id": old}, {"state": "active", "active_key_id": new}),
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


@pytest.mark.req("SEC-05")
@pytest.mark.req("SEC-04")
async def test_the_active_key_of_the_table_seals(installation: Installation) -> None:
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


@pytest.mark.req("SEC-05")
@pytest.mark.req("SEC-24", part="stale")
async def test_an_older_process_seals_under_the_new_key(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await stage(installation, NEW)
    before = await holding(installation, OLD, NEW)
    await promote(await holding(installation, NEW, OLD), NEW)
    rotated = await before.rotate(endpoint, overlap_seconds=60)

    assert NEW.key_id == await installation.pool.fetchval(
        "SELECT key_id FROM hookseal.secret_records WHERE tenant_id = 'acme' AND version = 2"
    )
    [*_, entry] = await audited(installation.pool)
    assert ("secret.rotated", NEW.key_id) == (entry["action"], entry["after"]["key_id"])
    assert [] == await master_keys.stale_now(installation)
    async with before.unlocked.service.signers(await installation.claimed()) as signers:
        assert [rotated.secret_ref, rotated.previous_secret_ref] == [signer.ref for signer in signers]


@pytest.mark.req("SEC-05")
async def test_a_process_without_the_new_key_seals_nothing(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await changed(installation, OLD, NEW)
    before = await kept(installation)
    with pytest.raises(KeyUnknown, match=NEW.key_id):
        await installation.rotate(endpoint)
    with pytest.raises(KeyUnknown, match=NEW.key_id):
        await installation.endpoint(url="https://other.example/")

    assert before == await kept(installation)
    await opened(installation)


@pytest.mark.req("SEC-05")
async def test_a_live_worker_without_the_key_prevents_a_promotion(installation: Installation) -> None:
    await stage(installation, NEW)
    process = await holding(installation, OLD, NEW)
    await worker(installation, "w-with", OLD, NEW)
    await worker(installation, "w-lost", OLD, seconds_ago=3_600)
    await worker(installation, "w-without", OLD)
    await refused(installation, promote, NEW, match=r"1 live worker.*: w-without: start them again", by=process)
    await installation.pool.execute("DELETE FROM hookseal.workers WHERE id = 'w-without'")

    assert KeyState.STAGED is (await promote(process, NEW)).was


@pytest.mark.req("SEC-05")
async def test_only_a_held_key_is_promoted(installation: Installation) -> None:
    """A process can promote only a key that it holds, since the key might otherwise be lost."""
    await stage(installation, NEW)
    with pytest.raises(Refused, match="SECRETS_MASTER_KEY_NEXT"):
        await promote(installation, NEW)


@pytest.mark.req("SEC-05")
async def test_a_promotion_can_be_reversed(installation: Installation) -> None:
    before = await installation.pool.fetchval("SELECT promoted_at FROM hookseal.secret_keys")
    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)
    moved = await promote(process, OLD)

    assert (KeyState.DECRYPT_ONLY, KeyState.ACTIVE) == (moved.was, moved.life.state)
    assert (before, None) == (moved.life.promoted_at, moved.life.drained_at)
    assert 2 == await replaced(process, NEW)


@pytest.mark.req("SEC-05")
@pytest.mark.req("SEC-22")
async def test_a_compromised_key_never_seals_again(installation: Installation) -> None:
    await stage(installation, NEWER)
    process = await changed(installation, OLD, NEWER, NEW)
    await installation.pool.execute("UPDATE hookseal.secret_keys SET compromised_at = now() WHERE state <> 'active'")
    for key in (OLD, NEWER):
        await refused(installation, promote, key, match="is compromised: it never seals again", by=process)
    await refused(installation, stage, NEWER, match="is compromised, so it cannot be the next one", by=process)


@pytest.mark.req("SEC-05")
async def test_a_needed_key_is_not_retired(installation: Installation) -> None:
    await installation.endpoint()
    await installation.endpoint("bmce")
    await installation.deliveries()
    process = await changed(installation, OLD, NEW)
    before = await kept(installation)
    with pytest.raises(Conflict) as caught:
        await retire(process, OLD)
    needed = f"4 records are sealed under master key {OLD.key_id}, and 1 pending delivery needs them"
    assert (needed, f"run `hookseal key rewrap {OLD.key_id}` first") == (str(caught.value), caught.value.advice)
    assert before == await kept(installation)
    assert 4 == await process.act(records_of, OLD.key_id)
    assert 4 == (await process.act(finish_rewrap, OLD.key_id)).records
    assert before == await kept(installation)


@pytest.mark.req("SEC-05")
async def test_a_retired_key_opens_nothing(installation: Installation) -> None:
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


@pytest.mark.req("SEC-05")
async def test_a_held_key_is_not_destroyed(installation: Installation) -> None:
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


@pytest.mark.req("SEC-05")
@pytest.mark.req("SEC-06")
async def test_retiring_and_destroying_clear_the_caches(installation: Installation) -> None:
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


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("move", [promote, retire, destroy, finish, master_keys.batch])
async def test_an_unregistered_key_is_not_found(
    installation: Installation, move: Callable[..., Awaitable[Any]]
) -> None:
    with pytest.raises(NotFound) as caught:
        await move(installation, master_key("unknown"))
    assert ("key_id", "see `hookseal key status`") == (caught.value.field, caught.value.advice)


@pytest.mark.req("SEC-05")
async def test_dev_has_no_master_keys(pool: Pool) -> None:
    unlocked = await unlock(pool, Provider.DEV, None)
    async with pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        with pytest.raises(Refused, match="has no master keys"):
            keyring_of(operator)


# Concurrent changes of master keys, and of secrets beside them: one key is active at any time, without deadlocks.

STATES = "SELECT key_id, state FROM hookseal.secret_keys"
DEADLOCKS = "SELECT pg_stat_clear_snapshot(), deadlocks FROM pg_stat_database WHERE datname = current_database()"


async def states(installation: Installation) -> dict[str, str]:
    return {row["key_id"]: row["state"] for row in await installation.pool.fetch(STATES)}


@pytest.mark.req("SEC-05")
async def test_concurrent_promotions_leave_one_active_key(installation: Installation) -> None:
    await stage(installation, NEW)
    await stage(installation, NEWER)
    process = await holding(installation, OLD, NEW, NEWER)
    moves = await asyncio.gather(*(promote(process, (NEW, NEWER)[number % 2]) for number in range(10)))

    entries = [row for row in await audited(installation.pool, "_system") if row["action"] == "key.promoted"]
    assert len(entries) == len([move for move in moves if move.was is not KeyState.ACTIVE])
    was = OLD.key_id
    for row in entries:  # each replaced the key that the row before it made active
        assert was == row["before"]["active_key_id"]
        was = row["after"]["active_key_id"]
        assert f"key:{was}" == row["subject"]
    assert {"active": 1, "decrypt_only": 2} == Counter((await states(installation)).values())
    assert "active" == (await states(installation))[was]
    await require_sound_log(process)


@pytest.mark.req("SEC-05")
async def test_concurrent_stagings_register_each_key_once(installation: Installation) -> None:
    await asyncio.gather(*(stage(installation, (NEW, NEWER)[number % 2]) for number in range(10)))

    subjects = [row["subject"] for row in await audited(installation.pool, "_system") if row["action"] == "key.staged"]
    assert {f"key:{NEW.key_id}": 1, f"key:{NEWER.key_id}": 1} == Counter(subjects)


@pytest.mark.req("SEC-05")
async def test_concurrent_moves_are_done_or_refused(installation: Installation) -> None:
    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)
    without = await holding(installation, NEW)
    moves: list[Callable[[], Awaitable[Any]]] = [
        lambda: stage(without, OLD),
        lambda: promote(process, OLD),
        lambda: master_keys.retire(process, OLD),
        lambda: master_keys.destroy(without, OLD),
    ]
    ended = await asyncio.gather(*(move() for move in moves * 4), return_exceptions=True)

    assert all(isinstance(each, Conflict) for each in ended if isinstance(each, BaseException)), ended
    entries = [row for row in await audited(installation.pool, "_system") if row["subject"] == f"key:{OLD.key_id}"]
    steps = [
        row["action"] for row in entries if row["action"] not in {"key.initialised", "key.rewrapped", "key.drained"}
    ]
    assert steps in (["key.retired"], ["key.retired", "key.destroyed"], ["key.promoted"])
    assert {"key.retired": "retired", "key.destroyed": "destroyed", "key.promoted": "active"}[steps[-1]] == (
        await states(installation)
    )[OLD.key_id]
    await require_sound_log(without)


async def compromised(process: Installation, key: MasterKey) -> None:
    """Mark the key and replace what it sealed."""
    how = CompromiseOptions(overlap_seconds=0, force=False, dry_run=False, random_bytes=os.urandom)
    await process.act(drill, key.key_id, how, lambda _replaced: None)


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize(
    ("move", "key"), [(stage, NEWER), (promote, OLD), (finish, OLD), (master_keys.retire, OLD), (compromised, OLD)]
)
async def test_every_move_waits_for_running_sealings(
    installation: Installation, move: Callable[[Installation, MasterKey], Coroutine[Any, Any, Any]], key: MasterKey
) -> None:
    """A move begins once every running sealing has ended; the rows that it checks cannot change until it is done."""
    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)
    async with installation.pool.acquire() as sealing, sealing.transaction():
        await active_key.lock_shared(sealing)
        moving = asyncio.create_task(move(process, key))
        await blocked(installation)
        assert not moving.done()
    await moving


@pytest.mark.req("SEC-05")
async def test_a_re_promoted_key_is_not_drained(installation: Installation) -> None:
    process = await changed(installation, OLD, NEW)
    await master_keys.rewrap(process, OLD)
    async with installation.pool.acquire() as moving, moving.transaction():
        await active_key.lock_exclusive(moving)
        finishing = asyncio.create_task(finish(process, OLD))
        await blocked(installation)
        await key_moves.promote(moving, OLD.key_id)
    assert 0 == await finishing

    assert "active" == (await states(installation))[OLD.key_id]
    assert 0 == await installation.pool.fetchval("SELECT count(drained_at) FROM hookseal.secret_keys")
    added = await process.endpoint()
    assert [] == await stale_now(installation)
    assert 1 == await under(installation, OLD), added


async def drained(process: Installation, older: MasterKey) -> None:
    """Re-wrap twice concurrently, then record that nothing is left."""
    await asyncio.gather(*(master_keys.rewrap(process, older) for _ in range(2)))
    assert 0 == await finish(process, older)


class Traffic:
    """Rotates three endpoints of acme continuously, and adds and deletes another."""

    def __init__(self, process: Installation) -> None:
        self._process = process
        self._done = False
        self._rotations = 0

    async def __aenter__(self) -> Self:
        urls = [f"https://receiver.example/{number}" for number in range(3)]
        endpoints = [(await self._process.endpoint(url=url)).pointer.endpoint_id for url in urls]
        self._tasks = [asyncio.create_task(work) for work in (*map(self._rotate, endpoints), self._come_and_go())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._done = True
        await asyncio.gather(*self._tasks)

    async def more(self) -> None:
        """Return once further rotations were made."""
        enough = self._rotations + 6

        async def look() -> bool:
            return self._rotations >= enough

        await eventually(look)

    async def _rotate(self, endpoint: EndpointId) -> None:
        while not self._done:
            await self._process.rotate(endpoint)
            self._rotations += 1

    async def _come_and_go(self) -> None:
        while not self._done:
            own = (await self._process.endpoint(url="https://receiver.example/come")).pointer.endpoint_id
            await self._process.act(delete_endpoint, ACME, own)


@pytest.mark.req("SEC-05")
async def test_key_changes_under_rotations(installation: Installation) -> None:
    """During rotations, additions and deletions the key changes repeatedly: no key seals once another is active."""
    keys = [OLD, NEW, NEWER, master_key("last")]
    for key in keys[1:]:
        await stage(installation, key)
    process = await holding(installation, *keys)
    async with Traffic(process) as traffic:
        for older, newer in pairwise(keys):
            await traffic.more()  # so that each key has sealed something
            await promote(process, newer)
            await drained(process, older)
        await traffic.more()

    assert [0, 0, 0] == [await under(installation, key) for key in keys[:-1]]
    assert [] == await stale_now(installation)
    await opened(await holding(installation, keys[-1]))
    assert 0 == (await installation.pool.fetchrow(DEADLOCKS))["deadlocks"]  # type: ignore[index]
    await require_sound_log(process)


# The integrity key during changes of the master key, and with a provider without master keys.


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_a_new_master_key_opens_the_integrity_key(installation: Installation) -> None:
    """Under a new master key it still opens, its next version is sealed under that key, and all rows verify."""
    pool, first = installation.pool, keyring().sealing
    added = await installation.endpoint()
    await rows.change(pool, "secret_keys", state="decrypt_only")
    await register(pool, SECOND)
    unlocked = await unlock(pool, Provider.DB, KeyRing(SECOND, (first,)))
    unlocked.integrity.verify(added.pointer)
    async with pool.acquire() as connection:
        await rotate_integrity_key(Operator(connection=connection, unlocked=unlocked, who="ada@desk"), os.urandom)
    after = await Installation(pool=pool, unlocked=unlocked).endpoint("bmce")

    again = await unlock(pool, Provider.DB, KeyRing(SECOND, (first,)))
    for pointer, key_id in ((added.pointer, "1"), (after.pointer, "2")):
        assert key_id == pointer.mac_key_id
        again.integrity.verify(pointer)
    assert [None, None, None] == [each.broken for each in await log.verify(pool, again.integrity)]
    records = await pool.fetch("SELECT key_id FROM hookseal.secret_records WHERE name = 'integrity' ORDER BY version")
    assert [first.key_id, SECOND.key_id] == [row["key_id"] for row in records]


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_a_running_command_uses_the_newest_version(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with installation.pool.acquire() as first:
        long = replace(installation, unlocked=await unlock(first, Provider.DB, keyring()))
        async with first.transaction():  # other lanes read there meanwhile, each on its own connection
            cursor = first.cursor("SELECT generate_series(1, 1000)")
            await anext(aiter(cursor))
            await installation.act(rotate_integrity_key, os.urandom)
            await installation.rotate(endpoint)
            await long.rotate(endpoint)

    assert ("2", 3, "2") == tuple(
        await installation.pool.fetchrow(
            "SELECT mac_key_id, generation, (SELECT mac_key_id FROM hookseal.audit_log WHERE tenant_id = 'acme'"
            " ORDER BY sequence DESC LIMIT 1) FROM hookseal.endpoints"
        )
        or ()
    )


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_an_altered_version_stops_no_change(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    long = replace(installation, unlocked=await unlock(installation.pool, Provider.DB, keyring()))
    await installation.act(rotate_integrity_key, os.urandom)
    altered = rows.Sql("set_byte(sealed, 40, 255 - get_byte(sealed, 40))")
    await rows.change(installation.pool, "secret_records", "db:_system:integrity:2", sealed=altered)
    await long.rotate(endpoint)

    assert "1" == await installation.pool.fetchval("SELECT mac_key_id FROM hookseal.endpoints")


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_a_provider_without_master_keys_stores_it(pool: Pool) -> None:
    """A provider without master keys stores the integrity key itself: it rotates, and older versions still verify."""
    unlocked = await unlock(pool, Provider.DEV, None)
    message = b"a message"
    before = unlocked.integrity.authenticate(message)
    async with pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        rotated = await rotate_integrity_key(operator, os.urandom)

    assert ("2", ("1",), None) == (rotated.key_id, rotated.older, await unlocked.sealing_key_id(pool))
    assert unlocked.integrity.is_authentic(message, before, "1")
    assert before != unlocked.integrity.authenticate(message)
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.secret_records")
