"""A process that moves a master key, killed at every await: the old state or the new one, and run again it is done."""

import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hookseal.secrets.context import Purpose
from hookseal.secrets.keyring import MasterKey
from hookseal.secrets.ref import SecretRef
from tests import forked
from tests.doubles import master_keys
from tests.doubles.logbook import audited
from tests.doubles.master_keys import holding, opened, put_back_now, require_sound_log, under
from tests.doubles.stored import Installation
from tests.operations import dying_keys
from tests.operations.dying_keys import FIRST, key_of
from tests.worker.waiting import eventually

pytestmark = [pytest.mark.req("SEC-05"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SESSIONS = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dying'"
KILLED = -9


class Dying:
    """The program that obeys orders, each in a process that may die of it."""

    def __init__(self, process: Process, installation: Installation, database_url: str) -> None:
        self._process = process
        self._installation = installation
        self._database_url = database_url

    async def obey(self, name: str, key: str, held: list[str], dies_at: int) -> dict[str, Any]:
        """Return how a fresh process with these keys ended that did it, once PostgreSQL knows that it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"database_url": self._database_url, "name": name, "key": key, "held": held, "dies_at": dies_at}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        await eventually(lambda: self._installation.pool.fetchval(SESSIONS))
        return answer


@pytest.fixture
async def program(installation: Installation, database_url: str) -> AsyncIterator[Dying]:
    """Yield the program; it is ended afterwards."""
    process = await forked.start(module="tests.operations.dying_keys", stdin=PIPE, stdout=PIPE, cwd=ROOT)
    assert process.stdin is not None
    try:
        yield Dying(process, installation, database_url)
    finally:
        process.stdin.close()
        await process.wait()


class Chain:
    """An installation in which key follows key, so that every move can be made again and again."""

    def __init__(self, installation: Installation) -> None:
        self._first = installation
        self.seeds = [FIRST]
        self.process = installation

    @property
    def older(self) -> str:
        """The seed of the key that sealed before the newest."""
        return self.seeds[-2]

    @property
    def newest(self) -> str:
        """The seed of the newest key."""
        return self.seeds[-1]

    def next(self) -> str:
        """Take the next key; nobody knows it yet."""
        self.seeds.append(f"key {len(self.seeds)}")
        return self.newest

    async def staged(self) -> None:
        """Have the next key staged."""
        self.next()
        await master_keys.stage(self.process, key_of(self.newest))
        self.process = await holding(self._first, key_of(self.older), key_of(self.newest))

    async def promoted(self) -> None:
        """Have the next key seal."""
        await self.staged()
        await master_keys.promote(self.process, key_of(self.newest))

    async def replaced(self) -> None:
        """Have the next key seal, and all be under it."""
        await self.promoted()
        await master_keys.replaced(self.process, key_of(self.older))

    async def retired(self) -> None:
        """Have the older key closed, too."""
        await self.replaced()
        await master_keys.retire(self.process, key_of(self.older))

    async def settle(self, name: str) -> None:
        """Have all be under the newest key, after that move."""
        newest, older = key_of(self.newest), key_of(self.older)
        if name in {"stage", "promote"}:
            self.process = await holding(self._first, older, newest)
            await master_keys.promote(self.process, newest)
            await master_keys.replaced(self.process, older)
        self.process = await holding(self._first, newest)


async def state(installation: Installation, key: MasterKey) -> str | None:
    """Return the state of the key, None if it is not registered."""
    found: str | None = await installation.pool.fetchval(
        "SELECT CASE WHEN drained_at IS NULL THEN state ELSE 'drained ' || state END"
        " FROM hookseal.secret_keys WHERE key_id = $1",
        key.key_id,
    )
    return found


async def is_done(installation: Installation, key: MasterKey, action: str, was: str | None, becomes: str) -> bool:
    """Return whether table and log say that it was done; fail unless they agree."""
    found = await state(installation, key)
    assert found in {was, becomes}
    told = [row for row in await audited(installation.pool, "_system") if row["subject"] == f"key:{key.key_id}"]
    assert (found == becomes) == (action in {row["action"] for row in told})
    [active] = await installation.pool.fetch("SELECT key_id FROM hookseal.secret_keys WHERE state = 'active'")
    assert active is not None
    return found == becomes


MOVES: list[Any] = [
    pytest.param("stage", None, "staged", "key.staged", id="stage"),
    pytest.param("promote", "staged", "active", "key.promoted", id="promote"),
    pytest.param("finish", "decrypt_only", "drained decrypt_only", "key.drained", id="finish"),
    pytest.param("retire", "drained decrypt_only", "drained retired", "key.retired", id="retire"),
    pytest.param("destroy", "drained retired", "drained destroyed", "key.destroyed", id="destroy"),
]


async def prepared(chain: Chain, name: str) -> tuple[str, list[str]]:
    """Bring the chain to where the move is to be made; return the key to move, and those that the mover holds."""
    match name:
        case "stage":
            chain.next()
            return chain.newest, [chain.older]
        case "promote":
            await chain.staged()
            return chain.newest, [chain.older, chain.newest]
        case "finish":
            await chain.promoted()
            await master_keys.rewrap(chain.process, key_of(chain.older))
        case "retire":
            await chain.replaced()
        case _:
            await chain.retired()
            return chain.older, [chain.newest]
    return chain.older, [chain.newest, chain.older]


@pytest.mark.parametrize(("name", "was", "becomes", "action"), MOVES)
async def test_a_move_killed_at_every_await(
    installation: Installation, program: Dying, name: str, was: str | None, becomes: str, action: str
) -> None:
    """Killed as it begins to wait for PostgreSQL or is answered, it did all or nothing, and may be asked again."""
    await installation.endpoint()
    before = await opened(installation)
    chain, endings = Chain(installation), list[bool]()
    for dies_at in count(1):
        seed, held = await prepared(chain, name)
        answer = await program.obey(name, seed, held, dies_at)
        done = await is_done(installation, key_of(seed), action, was, becomes)
        if answer["code"] != KILLED:
            assert ({"code": 0, "count": len(endings)}, True) == (answer, done)
            break
        endings.append(done)
        await again(installation, name, key_of(seed), held)
        assert await is_done(installation, key_of(seed), action, was, becomes)
        await chain.settle(name)

    require_one_moment(endings)
    last = [chain.newest] if name == "destroy" else [chain.older, chain.newest]
    assert before == await opened(await holding(installation, *map(key_of, last)))
    await require_sound_log(installation)


async def again(installation: Installation, name: str, key: MasterKey, held: list[str]) -> Installation:
    """Do it in a process that starts now; return that process."""
    process = await holding(installation, *map(key_of, held))
    async with installation.pool.acquire() as connection:
        await dying_keys.operation(process.operator(connection), name, key)
    return process


def require_one_moment(endings: list[bool]) -> None:
    """Fail unless many were tried, and there is one moment before which it is not done and after which it is."""
    assert len(endings) > 10
    assert sorted(endings) == endings
    assert {False, True} == set(endings)


@pytest.mark.req("SEC-24", part="put-back")
async def test_a_batch_killed_at_every_await(installation: Installation, program: Dying) -> None:
    """Of a batch all records moved, with the row that tells so, or none; whoever goes on finds the rest."""
    await installation.endpoint()
    before = await opened(installation)
    total, chain, endings = len(before), Chain(installation), list[bool]()
    for dies_at in count(1):
        await chain.promoted()
        older, newest = key_of(chain.older), key_of(chain.newest)
        answer = await program.obey("rewrap", chain.older, [chain.newest, chain.older], dies_at)
        left = await under(installation, older)
        told = [row["action"] for row in await audited(installation.pool, "_system")]
        assert (left == 0) == (told[-1] == "key.rewrapped")
        assert (left, total - left) == (left, await under(installation, newest))
        assert left in {0, total}
        assert [] == await put_back_now(installation)
        assert before == await opened(chain.process)
        if answer["code"] != KILLED:
            assert ({"code": 0, "count": len(endings)}, 0) == (answer, left)
            break
        endings.append(left == 0)
        assert left == await master_keys.replaced(chain.process, older)
        assert before == await opened(await holding(installation, newest))

    require_one_moment(endings)
    await require_sound_log(installation)


@dataclass(frozen=True, kw_only=True)
class Stands:
    """How far a drill has come: whether the key is marked, the endpoint's generation, versions of the integrity key."""

    marked: bool
    generation: int
    versions: int


async def stands(installation: Installation, older: MasterKey) -> Stands:
    """Return how far the drill of that key has come."""
    row = await installation.pool.fetchrow(
        "SELECT (SELECT compromised_at IS NOT NULL FROM hookseal.secret_keys WHERE key_id = $1) AS marked,"
        " (SELECT generation FROM hookseal.endpoints) AS generation,"
        " (SELECT count(*) FROM hookseal.secret_records WHERE name = 'integrity') AS versions",
        older.key_id,
    )
    assert row is not None
    return Stands(**dict(row))


async def require_replaced(process: Installation, newest: MasterKey) -> None:
    """Fail unless the endpoint's current secret opens and is under the newest key, and each before it is there."""
    rows = await process.pool.fetch(
        "SELECT concat_ws(':', provider, tenant_id, name, version) AS ref, key_id, state"
        " FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY version"
    )
    assert ["retired"] * (len(rows) - 1) + ["active"] == [row["state"] for row in rows]
    assert newest.key_id == rows[-1]["key_id"]
    [current] = await process.pool.fetch("SELECT secret_ref FROM hookseal.endpoints")
    assert current["secret_ref"] == rows[-1]["ref"]
    for row in rows:
        await process.unlocked.store.get(SecretRef.parse(row["ref"]), purpose=Purpose.WEBHOOK_SIGNING)


@pytest.mark.req("SEC-22")
@pytest.mark.parametrize("first", [1, 2])
async def test_a_drill_killed_at_every_await(installation: Installation, program: Dying, first: int) -> None:
    """Whatever it had replaced is, with its row; run again it replaces the rest, each once, and no version is lost.

    In two halves: it comes to a wait after every odd number, and to an answer after every even one.
    """
    await installation.endpoint()
    chain, seen, ended = Chain(installation), set[tuple[bool, int, int]](), False
    for dies_at in count(first, 2):
        await chain.promoted()
        older, newest, held = key_of(chain.older), key_of(chain.newest), [chain.newest, chain.older]
        before = await stands(installation, older)
        ended = (await program.obey("compromise", chain.older, held, dies_at))["code"] != KILLED
        now = await stands(installation, older)
        seen.add((now.marked, now.generation - before.generation, now.versions - before.versions))
        process = await again(installation, "compromise", older, held)
        assert Stands(marked=True, generation=before.generation + 1, versions=before.versions + 1) == await stands(
            installation, older
        )
        await require_replaced(process, newest)
        await master_keys.replaced(process, older)
        await chain.settle("compromise")
        if ended:
            break

    assert {(False, 0, 0), (True, 0, 0), (True, 0, 1), (True, 1, 1)} == seen
    assert dies_at > 60
    await opened(chain.process)
    await require_sound_log(chain.process)
