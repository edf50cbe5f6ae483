"""A move of a master key, killed at every await, leaves the whole old state or new one, and can be repeated."""

from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.ref import Purpose, SecretRef
from tests.doubles import master_keys
from tests.doubles.kept_rows import keep, put_back
from tests.doubles.logbook import audited
from tests.doubles.master_keys import holding, opened, require_sound_log, stale_now, under
from tests.doubles.stored import Installation
from tests.operations.every_await import Program, require_one_moment
from tests.operations.killed_process import FIRST, key_of, operation

pytestmark = [pytest.mark.req("SEC-05"), pytest.mark.timeout(300)]

# The tables in which a replacement writes.
REPLACED = (
    *("endpoints", "secret_keys", "secret_records", "secret_rotations", "secret_leftovers"),
    *("audit_log", "audit_heads", "control"),
)


class Chain:
    """An installation whose master key is changed repeatedly, so that every move can be made again and again."""

    def __init__(self, installation: Installation) -> None:
        self._first = installation
        self.seeds = [FIRST]
        self.process = installation

    @property
    def older(self) -> str:
        """The seed of the key that was active before the newest."""
        return self.seeds[-2]

    @property
    def newest(self) -> str:
        """The seed of the newest key."""
        return self.seeds[-1]

    def next(self) -> str:
        """Switch to the next key, which is not registered yet."""
        self.seeds.append(f"key {len(self.seeds)}")
        return self.newest

    async def staged(self) -> None:
        """Stage the next key."""
        self.next()
        await master_keys.stage(self.process, key_of(self.newest))
        self.process = await holding(self._first, key_of(self.older), key_of(self.newest))

    async def promoted(self) -> None:
        """Promote the next key."""
        await self.staged()
        await master_keys.promote(self.process, key_of(self.newest))

    async def replaced(self) -> None:
        """Promote the next key, and re-wrap all records."""
        await self.promoted()
        await master_keys.replaced(self.process, key_of(self.older))

    async def retired(self) -> None:
        """Do the same, and retire the older key."""
        await self.replaced()
        await master_keys.retire(self.process, key_of(self.older))

    async def settle(self, name: str) -> None:
        """After that move, complete the change to the newest key."""
        newest, older = key_of(self.newest), key_of(self.older)
        if name in {"stage", "promote"}:
            self.process = await holding(self._first, older, newest)
            await master_keys.promote(self.process, newest)
            await master_keys.replaced(self.process, older)
        self.process = await holding(self._first, newest)


async def state(installation: Installation, key: MasterKey) -> str | None:
    found: str | None = await installation.pool.fetchval(
        "SELECT CASE WHEN drained_at IS NULL THEN state ELSE 'drained ' || state END"
        " FROM hookseal.secret_keys WHERE key_id = $1",
        key.key_id,
    )
    return found


async def is_done(installation: Installation, key: MasterKey, action: str, was: str | None, becomes: str) -> bool:
    """Return whether table and log show the move as done; fail if they disagree."""
    found = await state(installation, key)
    assert found in {was, becomes}
    entries = [row for row in await audited(installation.pool, "_system") if row["subject"] == f"key:{key.key_id}"]
    assert (found == becomes) == (action in {row["action"] for row in entries})
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
    """Bring the installation to the state before the move; return the key to move, and the keys of the process."""
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
async def test_a_move_killed_at_any_await_can_be_repeated(
    installation: Installation, program: Program, name: str, was: str | None, becomes: str, action: str
) -> None:
    await installation.endpoint()
    before = await opened(installation)
    chain, endings = Chain(installation), list[bool]()
    seed, held = await prepared(chain, name)
    for kill_at in count(1):
        ending = await program.run(name, seed, kill_at, held=held)
        done = await is_done(installation, key_of(seed), action, was, becomes)
        if not ending.was_killed:
            assert (len(endings), True) == (ending.places, done)
            break
        endings.append(done)
        if endings.count(done) == 1:  # else what is stored is the same as after the kill before
            await again(installation, name, seed, held)
            assert await is_done(installation, key_of(seed), action, was, becomes)
        if done or len(endings) == 1:
            await chain.settle(name)
            seed, held = await prepared(chain, name)

    require_one_moment(endings, least=5)
    last = [chain.newest] if name == "destroy" else [chain.older, chain.newest]
    assert before == await opened(await holding(installation, *map(key_of, last)))
    await require_sound_log(installation)


async def again(installation: Installation, name: str, seed: str, held: list[str]) -> Installation:
    """Run the move in a new process; return that process."""
    process = await holding(installation, *map(key_of, held))
    await process.act(operation, name, seed)
    return process


@pytest.mark.req("SEC-24", part="stale")
async def test_a_batch_killed_at_any_await_can_be_repeated(installation: Installation, program: Program) -> None:
    await installation.endpoint()
    before = await opened(installation)
    total, chain, endings = len(before), Chain(installation), list[bool]()
    await chain.promoted()
    for kill_at in count(1):
        older, newest = key_of(chain.older), key_of(chain.newest)
        ending = await program.run("rewrap", chain.older, kill_at, held=[chain.newest, chain.older])
        left = await under(installation, older)
        actions = [row["action"] for row in await audited(installation.pool, "_system")]
        assert (left == 0) == (actions[-1] == "key.rewrapped")
        assert (left, total - left) == (left, await under(installation, newest))
        assert left in {0, total}
        assert [] == await stale_now(installation)
        assert before == await opened(chain.process)
        if not ending.was_killed:
            assert (len(endings), 0) == (ending.places, left)
            break
        endings.append(left == 0)
        if endings[-1] or len(endings) == 1:  # else what is stored is the same as before
            assert left == await master_keys.replaced(chain.process, older)
            assert before == await opened(await holding(installation, newest))
            await chain.promoted()

    require_one_moment(endings, least=5)
    await require_sound_log(installation)


@dataclass(frozen=True, kw_only=True)
class ReplacementState:
    """How far a replacement is: whether the key is marked, the endpoint's generation, the integrity key versions."""

    marked: bool
    generation: int
    versions: int


async def replacement_state(installation: Installation, older: MasterKey) -> ReplacementState:
    """Return how far the replacement for that key is."""
    row = await installation.pool.fetchrow(
        "SELECT (SELECT compromised_at IS NOT NULL FROM hookseal.secret_keys WHERE key_id = $1) AS marked,"
        " (SELECT generation FROM hookseal.endpoints) AS generation,"
        " (SELECT count(*) FROM hookseal.secret_records WHERE name = 'integrity') AS versions",
        older.key_id,
    )
    assert row is not None
    return ReplacementState(**dict(row))


async def require_replaced(process: Installation, newest: MasterKey) -> None:
    """Fail unless the endpoint's current secret opens under the newest key, and every older version exists."""
    rows = await process.pool.fetch(
        "SELECT ref, key_id, state FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY version"
    )
    assert ["retired"] * (len(rows) - 1) + ["active"] == [row["state"] for row in rows]
    assert newest.key_id == rows[-1]["key_id"]
    [current] = await process.pool.fetch("SELECT secret_ref FROM hookseal.endpoints")
    assert current["secret_ref"] == rows[-1]["ref"]
    for row in rows:
        await process.unlocked.store.get(SecretRef.parse(row["ref"]), purpose=Purpose.WEBHOOK_SIGNING)


async def require_completed(stored: Installation, chain: Chain, before: ReplacementState) -> None:
    """Repeat the replacement; fail unless it then is complete, each secret was replaced once, and the log is sound."""
    older, newest = key_of(chain.older), key_of(chain.newest)
    process = await again(stored, "compromise", chain.older, [chain.newest, chain.older])
    done = ReplacementState(marked=True, generation=before.generation + 1, versions=before.versions + 1)
    assert done == await replacement_state(stored, older)
    await require_replaced(process, newest)
    await master_keys.replaced(process, older)
    settled = await holding(stored, newest)
    await opened(settled)
    await require_sound_log(settled)


@pytest.mark.req("SEC-22")
async def test_a_replacement_killed_at_any_await_can_be_repeated(installation: Installation, program: Program) -> None:
    """What was replaced is audited; a repeat replaces the rest, each secret once, and no version is lost.

    It is repeated once for each log that the kills leave, because the log says what is stored.
    """
    await installation.endpoint()
    chain, seen = Chain(installation), dict[tuple[str, ...], tuple[bool, int, int]]()
    await chain.promoted()
    older, held = key_of(chain.older), [chain.newest, chain.older]
    before = await replacement_state(installation, older)
    await keep(installation.pool, *REPLACED)
    for kill_at in count(1):
        async with installation.pool.acquire() as connection:
            await put_back(connection, *REPLACED)
        assert before == await replacement_state(installation, older)
        ending = await program.run("compromise", chain.older, kill_at, held=held)
        now = await replacement_state(installation, older)
        change = (now.marked, now.generation - before.generation, now.versions - before.versions)
        rows = [*await audited(installation.pool, "_system"), *await audited(installation.pool)]
        log = tuple(row["action"] for row in rows)
        if log not in seen:
            seen[log] = change
            await require_completed(installation, chain, before)
        assert change == seen[log]
        if not ending.was_killed:
            break

    assert {(False, 0, 0), (True, 0, 0), (True, 0, 1), (True, 1, 1)} == set(seen.values())
    assert kill_at > 40
