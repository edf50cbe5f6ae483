"""Concurrent changes of master keys, and of secrets beside them: one key is active at any time, without deadlocks."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from itertools import pairwise
from typing import Any, Self

import pytest

from hookseal.errors import Conflict
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.key.keys import CompromiseOptions, drill
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose
from hookseal.secrets.key import active_key
from hookseal.secrets.key import keys as key_moves
from tests.doubles import master_keys
from tests.doubles.logbook import audited
from tests.doubles.master_keys import (
    NEW,
    NEWER,
    OLD,
    changed,
    finish,
    holding,
    opened,
    promote,
    replaced,
    require_sound_log,
    stage,
    stale_now,
    under,
)
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked
from tests.secrets.samples import master_key
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-05")

ACME = TenantId("acme")
STATES = "SELECT key_id, state FROM hookseal.secret_keys"
DEADLOCKS = "SELECT pg_stat_clear_snapshot(), deadlocks FROM pg_stat_database WHERE datname = current_database()"


async def states(installation: Installation) -> dict[str, str]:
    """Return the state of every key."""
    return {row["key_id"]: row["state"] for row in await installation.pool.fetch(STATES)}


async def test_concurrent_promotions_leave_one_active_key(installation: Installation) -> None:
    """Of ten concurrent promotions of two keys each effective one is audited, and one key is active."""
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


async def test_concurrent_stagings_register_each_key_once(installation: Installation) -> None:
    """Of ten concurrent stagings of two keys each key is registered and audited once."""
    await asyncio.gather(*(stage(installation, (NEW, NEWER)[number % 2]) for number in range(10)))

    subjects = [row["subject"] for row in await audited(installation.pool, "_system") if row["action"] == "key.staged"]
    assert {f"key:{NEW.key_id}": 1, f"key:{NEWER.key_id}": 1} == Counter(subjects)


async def test_concurrent_moves_are_done_or_refused(installation: Installation) -> None:
    """Concurrent stage, promote, retire and destroy of one key are each done or refused, in some order."""
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
    assert steps in (
        ["key.retired"],
        ["key.retired", "key.destroyed"],
        ["key.promoted"],
    )
    assert {"key.retired": "retired", "key.destroyed": "destroyed", "key.promoted": "active"}[steps[-1]] == (
        await states(installation)
    )[OLD.key_id]
    await require_sound_log(without)


async def test_a_promotion_waits_for_a_running_sealing(installation: Installation) -> None:
    """A promotion waits for an uncommitted sealing; a sealing after it uses the new key."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await stage(installation, NEW)
    process = await holding(installation, OLD, NEW)
    async with installation.pool.acquire() as sealing:
        async with process.operator(sealing).changing():
            await process.unlocked.store_on(sealing).put(
                ACME, "meanwhile", SecretMaterial(b"of whoever seals"), purpose=Purpose.WEBHOOK_SIGNING
            )
            assert OLD.key_id == await process.unlocked.sealing_key_id(sealing)
            promoting = asyncio.create_task(promote(process, NEW))
            await blocked(installation)
            after = asyncio.create_task(process.rotate(endpoint))
            assert OLD.key_id == await process.unlocked.sealing_key_id(sealing)
        await asyncio.gather(promoting, after)

    rows = await installation.pool.fetch(
        "SELECT key_id FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY name, version"
    )
    assert [OLD.key_id, OLD.key_id, NEW.key_id] == [row["key_id"] for row in rows]


async def compromised(process: Installation, key: MasterKey) -> None:
    """Mark the key and replace what it sealed."""
    how = CompromiseOptions(overlap_seconds=0, force=False, dry_run=False, random_bytes=os.urandom)
    async with process.pool.acquire() as connection:
        await drill(process.operator(connection), key.key_id, how, lambda _replaced: None)


@pytest.mark.parametrize(
    ("move", "key"),
    [
        (stage, NEWER),
        (promote, OLD),
        (finish, OLD),
        (master_keys.retire, OLD),
        (compromised, OLD),
    ],
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


async def test_a_re_promoted_key_is_not_drained(installation: Installation) -> None:
    """A key that is promoted again while a re-wrap is about to end is not recorded as drained."""
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
            async with self._process.pool.acquire() as connection:
                await delete_endpoint(self._process.operator(connection), ACME, own)


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
