"""Master keys: the rules and moves in their table, re-wraps, what a leak exposes, and the begin of an installation."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from hookseal.errors import Conflict, Defect, HooksealError, Malformed, Refused, with_advice
from hookseal.ground import ids
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.postgres.pool import Connection, Pool
from hookseal.secrets.core.envelope import HEAD_BYTES, open_sealed, rewrapped, seal
from hookseal.secrets.core.key_rules import (
    KeyState,
    Use,
    may_be_drained,
    must_destroy,
    must_promote,
    must_register,
    must_retire,
    must_rewrap,
    require_replaced,
)
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext
from hookseal.secrets.key import compromise, rewrap
from hookseal.secrets.key import keys as moves
from hookseal.secrets.key.compromise import Exposed, Remedy, count, cursor_of, exposed, page, place_of
from hookseal.secrets.key.keys import KeyRow, KeyStatus, initialise, needed, registered, status, use
from hookseal.secrets.key.rewrap import BEGINNING, Batch, Cursor, Unopened, altered, batch
from hookseal.secrets.store import records as versions
from hookseal.secrets.store.postgres import PostgresStore
from tests import rows
from tests.secrets.samples import (
    ENDPOINT,
    FIRST,
    NAME,
    OTHER_ENDPOINT,
    OTHER_SECRET,
    OTHER_TENANT,
    RING,
    SECOND,
    SECRET,
    TENANT,
    THIRD,
    ref,
    register,
    sealed_under,
)
from tests.worker.waiting import eventually

KEY = "0123456789abcdef"
NOTHING = Use(records=0, deliveries=0)
SOME = Use(records=3, deliveries=7)
SIX = [f"w-{number}" for number in range(1, 7)]
Rule = Callable[[KeyState], object]
STATES = list(KeyState)
STAGED, ACTIVE, DECRYPT_ONLY, RETIRED, DESTROYED = STATES

# For each state, in their order: True if the move has something to do, False if not, or the reason for a refusal.
TABLE: dict[str, tuple[Rule, list[bool | str]]] = {
    "stage": (
        lambda state: must_register(state, KEY, is_compromised=False),
        [False, "is active already", "is decrypt_only already", "is retired already", "is destroyed already"],
    ),
    "stage what others may know": (
        lambda state: must_register(state, KEY, is_compromised=True),
        ["is compromised", "is compromised", "is compromised", "is compromised", "is compromised"],
    ),
    "promote": (
        lambda state: must_promote(state, KEY, is_compromised=False, held=True, lacking=[]),
        [True, False, True, "is retired: it never seals again", "is destroyed: it never seals again"],
    ),
    "promote what others may know": (
        lambda state: must_promote(state, KEY, is_compromised=True, held=True, lacking=[]),
        ["is compromised", False, "is compromised", "is compromised", "is compromised"],
    ),
    "promote without it": (
        lambda state: must_promote(state, KEY, is_compromised=False, held=False, lacking=[]),
        ["supply it in SECRETS_MASTER_KEY_NEXT", False, "supply it in SECRETS_MASTER_KEY_NEXT", "is ret", "is des"],
    ),
    "promote while workers lack it": (
        lambda state: must_promote(state, KEY, is_compromised=False, held=True, lacking=["w-1"]),
        [
            "1 live worker does not hold master key 0123456789abcdef: w-1: start them again with it in",
            False,
            "or wait until they are gone",
            "is retired",
            "is destroyed",
        ],
    ),
    "rewrap": (
        lambda state: must_rewrap(state, KEY, held=True, drained=False),
        [False, "promote another first", True, False, False],
    ),
    "rewrap once drained": (
        lambda state: must_rewrap(state, KEY, held=True, drained=True),
        [False, "promote another first", False, False, False],
    ),
    "rewrap without it": (
        lambda state: must_rewrap(state, KEY, held=False, drained=False),
        [False, "promote another first", "supply it in SECRETS_MASTER_KEY_PREVIOUS", False, False],
    ),
    "drain": (may_be_drained, [False, False, True, False, False]),
    "retire": (lambda state: must_retire(state, KEY, NOTHING), [True, "promote another first", True, False, False]),
    "retire while something needs it": (
        lambda state: must_retire(state, KEY, SOME),
        [
            "3 records are sealed under master key 0123456789abcdef, and 7 pending deliveries need them: run",
            "promote another first",
            "run `hookseal key rewrap",
            False,
            False,
        ],
    ),
    "retire while a record needs it for which no delivery waits": (
        lambda state: must_retire(state, KEY, Use(records=1, deliveries=0)),
        ["1 record is sealed", "promote another first", "0 pending deliveries need them: run", False, False],
    ),
    "destroy": (
        lambda state: must_destroy(state, KEY, held=False, holding=[]),
        ["is staged: retire it first", "is active: retire", "is decrypt_only: retire it first", True, False],
    ),
    "destroy while this process holds it": (
        lambda state: must_destroy(state, KEY, held=True, holding=[]),
        ["retire", "retire", "retire", "this process holds master key 0123456789abcdef: take it out", False],
    ),
    "destroy while workers hold it": (
        lambda state: must_destroy(state, KEY, held=False, holding=SIX),
        [
            *["retire"] * 3,
            "could not start again: w-1, w-2, w-3, w-4, w-5 and 1 more: take it out of their settings first",
            False,
        ],
    ),
}


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize(
    ("move", "state", "expected"),
    [
        pytest.param(move, state, expected, id=f"{name}-{state}")
        for name, (move, row) in TABLE.items()
        for state, expected in zip(STATES, row, strict=True)
    ],
)
def test_every_move_of_every_state(move: Rule, state: KeyState, expected: bool | str) -> None:
    if isinstance(expected, bool):
        assert expected is move(state)
        return
    with pytest.raises(HooksealError) as caught:
        move(state)
    assert isinstance(caught.value, Refused if "supply it" in expected else Conflict)
    assert expected in with_advice(caught.value)
    assert KEY in str(caught.value)


@pytest.mark.req("SEC-05")
def test_an_unknown_key_is_registered() -> None:
    assert must_register(None, KEY, is_compromised=False)


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("state", STATES)
def test_the_active_key_cannot_be_replaced(state: KeyState) -> None:
    with nullcontext() if state is not ACTIVE else pytest.raises(Conflict, match="promote another first"):
        require_replaced(state, KEY)


@pytest.mark.req("SEC-05")
def test_no_move_reopens_a_key() -> None:
    for state in (RETIRED, DESTROYED):
        done = {}
        for name, (move, _) in TABLE.items():
            try:
                done[name] = move(state)
            except HooksealError:
                done[name] = None
        moved = {name for name, what in done.items() if what is True}
        assert ({"destroy"} if state is RETIRED else set()) == moved


# The table of master keys, and the initialisation of an installation.


async def begin(pool: Pool, keyring: KeyRing = RING) -> KeyStatus:
    """Initialise the installation of this pool."""
    async with pool.acquire() as connection:
        return await initialise(connection, keyring, PostgresStore(connection, keyring), os.urandom)


def row(key: MasterKey, *, state: str, held: bool, records: int, workers: int = 0) -> KeyRow:
    """Return the row of a key that was never moved."""
    return KeyRow(
        key_id=key.key_id,
        state=state,
        held=held,
        records=records,
        workers=workers,
        promoted_at=None,
        drained_at=None,
        compromised_at=None,
        retired_at=None,
        destroyed_at=None,
    )


@pytest.mark.req("SEC-04", part="key-init")
async def test_integrity_key_and_sentinel_are_random(pool: Pool) -> None:
    draws = [bytes([n]) * 32 for n in range(2)]
    chance = iter(draws)
    async with pool.acquire() as connection:
        store = PostgresStore(connection, RING)
        made = await initialise(connection, RING, store, lambda _: next(chance))

        assert draws == [
            (await store.get(made.integrity_ref, purpose=Purpose.INTEGRITY)).reveal(),
            (await store.get(made.sentinel_ref, purpose=Purpose.SENTINEL)).reveal(),
        ]


@pytest.mark.req("SEC-04", part="key-init")
async def test_an_installation_begins_once(pool: Pool) -> None:
    await begin(pool)
    before = await pool.fetch("SELECT * FROM hookseal.secret_records ORDER BY name")
    for keyring in (RING, KeyRing(SECOND)):
        with pytest.raises(Conflict, match="were made before"):
            await begin(pool, keyring)

    assert before == await pool.fetch("SELECT * FROM hookseal.secret_records ORDER BY name")
    assert 1 == len(await registered(pool))


@pytest.mark.req("SEC-04", part="key-init")
async def test_an_installation_begins_in_empty_tables_only(pool: Pool) -> None:
    await sealed_under(pool, FIRST)
    with pytest.raises(Conflict):
        await begin(pool)

    assert () == await registered(pool)


@pytest.mark.req("SEC-04", part="key-init")
async def test_a_failed_beginning_registers_nothing(pool: Pool) -> None:
    """Initialisation is one transaction: if the last secret cannot be made, no key is registered."""
    draws = iter([b"i" * 32, b""])
    async with pool.acquire() as connection:
        with pytest.raises(Exception, match="1 to 65536 bytes"):
            await initialise(connection, RING, PostgresStore(connection, RING), lambda _: next(draws))

    assert () == await registered(pool)
    assert () == await PostgresStore(pool, RING).versions(SYSTEM_TENANT, "integrity")


@pytest.mark.req("SEC-04", part="key-init")
async def test_status_has_state_holding_and_records(pool: Pool) -> None:
    assert () == await status(pool, RING, live_seconds=15)
    await begin(pool)
    await register(pool, SECOND, "staged")
    active, staged = (
        row(FIRST, state="active", held=True, records=2),
        row(SECOND, state="staged", held=False, records=0),
    )

    assert (active, staged) == tuple(
        replace(each, promoted_at=None) for each in await status(pool, RING, live_seconds=15)
    )
    assert [False, True] == [row.held for row in await status(pool, KeyRing(SECOND), live_seconds=15)]
    assert [False, False] == [row.held for row in await status(pool, None, live_seconds=15)]


@pytest.mark.req("SEC-04", part="key-init")
async def test_status_lists_an_unregistered_key(pool: Pool) -> None:
    await begin(pool)
    await sealed_under(pool, THIRD)

    assert row(THIRD, state="unregistered", held=False, records=1) == (await status(pool, RING, live_seconds=15))[-1]


@pytest.mark.req("SEC-04", part="key-init")
async def test_keys_with_records_are_needed(pool: Pool) -> None:
    await begin(pool)

    assert (FIRST.key_id,) == await needed(pool, [FIRST.key_id, SECOND.key_id])


# Moves of a master key in its table: what each writes, and what needs or has a key.

Move = Callable[[Connection, str], Awaitable[None]]


async def kept(pool: Pool) -> dict[str, dict[str, Any]]:
    """Return the table of keys."""
    return {row["key_id"]: dict(row) for row in await pool.fetch("SELECT * FROM hookseal.secret_keys")}


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize(
    ("move", "writes"),
    [
        (moves.promote, {"state": "active", "promoted_at": datetime}),
        (partial(moves.write_change, change="drained"), {"drained_at": datetime}),
        (partial(moves.write_change, change="compromised"), {"compromised_at": datetime}),
        (partial(moves.write_change, change="retired"), {"state": "retired", "retired_at": datetime}),
        (partial(moves.write_change, change="destroyed"), {"state": "destroyed", "destroyed_at": datetime}),
    ],
)
async def test_each_move_writes_state_and_time(pool: Pool, move: Move, writes: dict[str, Any]) -> None:
    await register(pool, FIRST, "active")
    await register(pool, SECOND, "staged")
    await register(pool, THIRD, "decrypt_only")
    before = await kept(pool)
    async with pool.acquire() as connection:
        await move(connection, SECOND.key_id)

    after = await kept(pool)
    changes = {
        key_id: {name: value for name, value in row.items() if value != before[key_id][name]}
        for key_id, row in after.items()
        if row != before[key_id]
    }
    stepped = {FIRST.key_id: {"state": "decrypt_only"}} if move is moves.promote else {}
    moved = changes.pop(SECOND.key_id)
    assert stepped == changes
    assert writes == {name: datetime if isinstance(value, datetime) else value for name, value in moved.items()}


@pytest.mark.req("SEC-05")
async def test_first_times_stay(pool: Pool) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=400)
    await register(pool, FIRST, "decrypt_only")
    await rows.change(pool, "secret_keys", promoted_at=long_ago, compromised_at=long_ago, drained_at=long_ago)
    async with pool.acquire() as connection:
        await moves.promote(connection, FIRST.key_id)
        await moves.write_change(connection, FIRST.key_id, "compromised")
        life = await moves.life(connection, FIRST.key_id)

    assert (KeyState.ACTIVE, long_ago, long_ago, None) == (
        life.state,
        life.promoted_at,
        life.compromised_at,
        life.drained_at,
    )


@pytest.mark.req("SEC-05")
async def test_workers_with_and_without_the_key_are_listed(pool: Pool) -> None:
    for name, keys, seconds_ago in (
        ("b", [FIRST, SECOND], 0),
        ("a", [SECOND], 14),
        ("c", [FIRST], 0),
        ("none", [], 1),
        ("lost", [FIRST], 16),
        ("lost-too", [SECOND], 16),
    ):
        await rows.worker(pool, name, key_ids=[key.key_id for key in keys], beaten_at=rows.ago(seconds=seconds_ago))
    async with pool.acquire() as connection:
        found = [
            await look(connection, SECOND.key_id, live_seconds=15)
            for look in (moves.workers_with, moves.workers_without)
        ]

    assert [["a", "b"], ["c", "none"]] == found


async def needing(pool: Pool) -> Use:
    """Return what needs the first key."""
    async with pool.acquire() as connection:
        return await moves.use(connection, FIRST.key_id)


@pytest.mark.req("SEC-05")
async def test_records_and_unsent_deliveries_need_a_key(pool: Pool) -> None:
    await register(pool, SECOND)
    assert Use(records=0, deliveries=0) == await needing(pool)
    await sealed_under(pool, FIRST)
    await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
    await sealed_under(pool, FIRST, ref(2, Provider.DB))
    await sealed_under(pool, SECOND, replace(ref(1, Provider.DB), tenant=OTHER_TENANT))
    for tenant in (TENANT, OTHER_TENANT):
        for state in ("pending", "sending", "delivered", "dead_letter", "failed", "cancelled"):
            await rows.delivery(pool, ENDPOINT, tenant=tenant, state=state)
    await rows.delivery(pool, OTHER_ENDPOINT, tenant=TENANT)
    assert Use(records=2, deliveries=2) == await needing(pool)

    await pool.execute("UPDATE hookseal.secret_records SET state = 'previous' WHERE state = 'active'")
    assert Use(records=2, deliveries=2) == await needing(pool)
    await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
    assert Use(records=2, deliveries=0) == await needing(pool)
    await pool.execute("UPDATE hookseal.secret_records SET sealed = $1", b"\1\1" + bytes.fromhex(FIRST.key_id))
    assert Use(records=3, deliveries=0) == await needing(pool)
    await pool.execute("UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL")
    assert Use(records=0, deliveries=0) == await needing(pool)


# Batches of a re-wrap: which records they change, which they skip, and what they write.

BOTH = KeyRing(SECOND, (FIRST,))
ROWS = "SELECT * FROM hookseal.secret_records ORDER BY tenant_id, name, version"
WAITS = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def five(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Seal five versions under the first key, of two tenants, all retired; batches have two rows."""
    monkeypatch.setattr(rewrap, "BATCH", 2)
    for version in (1, 2, 3):
        await sealed_under(pool, FIRST, ref(version, Provider.DB))
        await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
    for version in (1, 2):
        await sealed_under(pool, FIRST, replace(ref(version, Provider.DB), tenant=OTHER_TENANT))
        await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
    return pool


async def one(pool: Pool, after: Cursor = BEGINNING, *, wait: bool = False, ring: KeyRing = BOTH) -> Batch:
    """Re-wrap one batch in a transaction of its own."""
    async with pool.acquire() as connection, connection.transaction():
        return await batch(connection, ring, FIRST.key_id, after, wait=wait)


async def keys_of(pool: Pool) -> list[str]:
    """Return the key that each record names, in order: 1 or 2."""
    return ["1" if row["key_id"] == FIRST.key_id else "2" for row in await pool.fetch(ROWS)]


@pytest.mark.req("SEC-05")
async def test_each_batch_continues_after_the_last(five: Pool) -> None:
    done, after = [], BEGINNING
    while True:
        each = await one(five, after)
        done.append((each.moved, "".join(await keys_of(five))))
        if each.last is None:
            break
        after = each.last

    assert [(2, "22111"), (2, "22221"), (1, "22222")] == done
    for row in await five.fetch(ROWS):
        context = SecretContext(
            tenant=row["tenant_id"], name=row["name"], version=row["version"], purpose=Purpose(row["purpose"])
        )
        assert SECRET == open_sealed(KeyRing(SECOND), row["sealed"], context)
    empty = await one(five)
    assert (SECOND.key_id, 0, (), None) == (empty.to, empty.moved, empty.unopened, empty.last)


@pytest.mark.req("SEC-05")
async def test_after_a_full_batch_nothing_may_be_left(five: Pool) -> None:
    await five.execute("DELETE FROM hookseal.secret_records WHERE version = 3")
    first = await one(five)
    assert first.last == (TENANT, NAME, 2)
    second = await one(five, first.last)
    assert second.last == (OTHER_TENANT, NAME, 2)
    assert (0, None) == ((third := await one(five, second.last)).moved, third.last)


@pytest.mark.req("SEC-05")
async def test_a_later_re_wrap_finds_the_rest(five: Pool) -> None:
    await one(five)
    assert [2, 1, 0] == [(await one(five)).moved for _ in range(3)]
    assert ["2"] * 5 == await keys_of(five)


@pytest.mark.req("SEC-05")
async def test_a_locked_record_is_skipped(five: Pool) -> None:
    async with five.acquire() as connection:
        held = connection.transaction()
        await held.start()
        await connection.execute("UPDATE hookseal.secret_records SET changed_at = now() WHERE version = 2")
        passed = await one(five)
        assert (2, (TENANT, NAME, 3)) == (passed.moved, passed.last)
        assert ["2", "1", "2", "1", "1"] == await keys_of(five)
        waiting = asyncio.create_task(one(five, wait=True))
        await eventually(lambda: five.fetchval(WAITS))
        assert not waiting.done()
        await held.commit()

    assert 2 == (await waiting).moved
    # Re-wrapped now: version 2 of the first tenant, and the record after its version 3.
    assert ["2", "2", "2", "2", "1"] == await keys_of(five)


@pytest.mark.req("SEC-05")
async def test_a_record_changed_meanwhile_is_skipped(five: Pool) -> None:
    async with five.acquire() as connection:
        held = connection.transaction()
        await held.start()
        await batch(connection, BOTH, FIRST.key_id, BEGINNING, wait=True)
        await connection.execute(
            "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL WHERE version = 3"
        )
        waiting = asyncio.create_task(one(five, wait=True))
        await eventually(lambda: five.fetchval(WAITS))
        await held.commit()

    first = await waiting
    assert (0, (TENANT, NAME, 1)) == (first.moved, first.last)
    assert 2 == (await one(five, first.last or BEGINNING, wait=True)).moved
    found = await five.fetch(ROWS)
    assert [SECOND.key_id, SECOND.key_id, None, SECOND.key_id, SECOND.key_id] == [row["key_id"] for row in found]
    assert (None, "destroyed", [FIRST.key_id]) == (found[2]["sealed"], found[2]["state"], found[2]["wrapped_by"])


@pytest.mark.req("SEC-05")
async def test_a_waiting_batch_does_not_deadlock_with_a_rollback(five: Pool) -> None:
    newer, older = ref(2, Provider.DB), ref(1, Provider.DB)
    await five.execute("UPDATE hookseal.secret_records SET state = 'active' WHERE ref = $1", str(newer))
    async with five.acquire() as connection, connection.transaction():
        await versions.retire(connection, newer)  # the first statement of `arrange`
        waiting = asyncio.create_task(one(five, wait=True))

        async def has_come_to_it() -> bool:
            return waiting.done() or bool(await five.fetchval(WAITS))

        await eventually(has_come_to_it)
        await versions.arrange(connection, active=older, previous=None)
    done = await waiting

    assert (1, (TENANT, NAME, 1)) == (done.moved, done.last)
    assert [2, 2, 0] == [(await one(five, wait=True)).moved for _ in range(3)]
    assert ["active"] == [row["state"] for row in await five.fetch(ROWS) if row["ref"] == str(older)]


@pytest.mark.req("SEC-05")
async def test_concurrent_batches_take_different_records(five: Pool) -> None:
    done = await asyncio.gather(*(one(five) for _ in range(5)))

    assert 5 >= sum(each.moved for each in done)
    while (await one(five)).moved:
        pass
    found = await five.fetch(ROWS)
    assert [[FIRST.key_id, SECOND.key_id]] * 5 == [row["wrapped_by"] for row in found]


@pytest.mark.req("SEC-05")
async def test_the_list_of_keys_grows_once(five: Pool) -> None:
    for ring, key in ((BOTH, FIRST), (KeyRing(THIRD, (SECOND,)), SECOND), (KeyRing(FIRST, (THIRD,)), THIRD)):
        async with five.acquire() as connection, connection.transaction():
            await batch(connection, ring, key.key_id, BEGINNING, wait=False)
    await one(five)

    row = (await five.fetch(ROWS))[0]
    assert ([FIRST.key_id, SECOND.key_id, THIRD.key_id], SECOND.key_id) == (row["wrapped_by"], row["key_id"])


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("purpose = 'nobody-s'", "record_malformed"),
        ("purpose = 'integrity'", "context_mismatch"),
        ("sealed = '\\x0201'::bytea || substring(sealed FROM 3)", "record_malformed"),
        ("sealed = set_byte(sealed, 20, 255 - get_byte(sealed, 20))", "context_mismatch"),
        ("sealed = set_byte(sealed, 100, 255 - get_byte(sealed, 100))", "record_tampered"),
        ("name = 'renamed'", "context_mismatch"),
        ("tenant_id = 'renamed'", "context_mismatch"),
        ("version = 9", "context_mismatch"),
    ],
)
async def test_an_invalid_record_is_reported(five: Pool, change: str, code: str) -> None:
    await five.execute(f"UPDATE hookseal.secret_records SET {change} WHERE tenant_id = '{TENANT}' AND version = 1")  # noqa: S608
    places = {(row["tenant_id"], row["name"], row["version"]): row for row in await five.fetch(ROWS)}
    moved, unopened, after = 0, list[Unopened](), BEGINNING
    while True:
        each = await one(five, after)
        moved, after = moved + each.moved, each.last or BEGINNING
        unopened += each.unopened
        if each.last is None:
            break

    assert (4, [code]) == (moved, [each.code for each in unopened])
    [left] = [row for row in await five.fetch(ROWS) if row["key_id"] == FIRST.key_id]
    named = (unopened[0].tenant_id, unopened[0].name, unopened[0].version)
    assert named == (left["tenant_id"], left["name"], left["version"])
    assert places[named] == left


@pytest.mark.req("SEC-05")
async def test_an_altered_body_is_not_read(five: Pool) -> None:
    """A re-wrap does not read the body: an altered body stays the same, byte for byte."""
    await five.execute("UPDATE hookseal.secret_records SET sealed = sealed || 'x' WHERE version = 1")
    before = [row["sealed"][HEAD_BYTES:] for row in await five.fetch(ROWS)]
    for _ in range(3):
        await one(five)

    assert before == [row["sealed"][HEAD_BYTES:] for row in await five.fetch(ROWS)]
    assert ["2"] * 5 == await keys_of(five)


@pytest.mark.req("SEC-05")
async def test_a_newer_head_is_not_overwritten(five: Pool) -> None:
    row = (await five.fetch(ROWS))[0]
    context = SecretContext(tenant=TENANT, name=NAME, version=1, purpose=Purpose.WEBHOOK_SIGNING)
    head = row["sealed"][:HEAD_BYTES]
    anew = rewrapped(BOTH, head, context, of=FIRST.key_id)
    written = seal(RING, OTHER_SECRET, context)
    await five.execute(
        "UPDATE hookseal.secret_records SET sealed = $1 WHERE tenant_id = $2 AND version = 1", written, TENANT
    )
    statement = rewrap._SQL["write"]
    status = await five.execute(statement, SECOND.key_id, [TENANT], [NAME], [1], [head], [anew], HEAD_BYTES)

    assert "UPDATE 0" == status
    row = (await five.fetch(ROWS))[0]
    assert (written, FIRST.key_id) == (row["sealed"], row["key_id"])


@pytest.mark.req("SEC-05")
async def test_an_unwritten_record_rolls_the_batch_back(five: Pool) -> None:
    """If one locked record is not written, the whole batch is rolled back: its digest would be wrong."""
    await five.execute(
        "CREATE FUNCTION hookseal.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER keeps BEFORE UPDATE ON hookseal.secret_records FOR EACH ROW WHEN (OLD.version = 2)"
        " EXECUTE FUNCTION hookseal.keep()"
    )
    with pytest.raises(Defect, match="written by somebody else"):
        await one(five)

    assert ["1"] * 5 == await keys_of(five)


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("change", ["sealed = 'short'", "sealed = set_byte(sealed, 5, 255 - get_byte(sealed, 5))"])
async def test_a_record_under_an_unknown_key_is_reported(five: Pool, change: str) -> None:
    await register(five, FIRST, "decrypt_only")
    await register(five, SECOND)
    await five.execute(f"UPDATE hookseal.secret_records SET {change} WHERE tenant_id = '{TENANT}' AND version = 1")  # noqa: S608
    moved = 0
    after: Cursor | None = BEGINNING
    while after is not None:
        each = await one(five, after)
        moved, after = moved + each.moved, each.last
    assert 4 == moved
    async with five.acquire() as connection:
        [found] = await altered(connection, FIRST.key_id)
        assert (1, 4) == tuple([(await use(connection, key.key_id)).records for key in (FIRST, SECOND)])
        assert () == await altered(connection, SECOND.key_id)

    assert (TENANT, NAME, 1, "key_unknown") == (found.tenant_id, found.name, found.version, found.code)


# What a compromised master key may have exposed, according to the records and their rows.


@pytest.fixture
async def three(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Seal three versions under the first key, the newest active; pages have two rows."""
    monkeypatch.setattr(compromise, "_BATCH", 2)
    for version in (1, 2, 3):
        await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
        await sealed_under(pool, FIRST, ref(version, Provider.DB))
    return pool


async def listed(pool: Pool) -> list[int]:
    async with pool.acquire() as connection:
        found = [each.version async for each in exposed(connection, FIRST.key_id)]
        assert len(found) == await count(connection, FIRST.key_id)
    return found


@pytest.mark.req("SEC-22")
async def test_every_version_is_listed_once(three: Pool) -> None:
    assert [1, 2, 3] == await listed(three)
    async with three.acquire() as connection:
        assert (
            Exposed(
                tenant_id=TENANT,
                name=NAME,
                version=3,
                ref=str(ref(3, Provider.DB)),
                purpose="webhook-signing",
                state="active",
                endpoint_id=None,
                generation=None,
                used_as=None,
            )
            == (await page(connection, FIRST.key_id, (TENANT, NAME, 2), 10))[0]
        )
        assert [] == await page(connection, SECOND.key_id, BEGINNING, 10)


@pytest.mark.req("SEC-22")
@pytest.mark.parametrize(
    "written",
    [
        "wrapped_by = '{}'",
        "sealed = '\\x0101ffff'",
        "wrapped_by = wrapped_by || 'ffffffffffffffff'::text",
        "state = 'destroyed', sealed = NULL",
    ],
)
async def test_a_listed_or_named_key_is_enough(three: Pool, written: str) -> None:
    await three.execute(f"UPDATE hookseal.secret_records SET {written} WHERE version = 2")  # noqa: S608

    assert [1, 2, 3] == await listed(three)


@pytest.mark.req("SEC-22")
async def test_versions_under_other_keys_are_not_listed(three: Pool) -> None:
    await three.execute("DELETE FROM hookseal.secret_records WHERE version = 3")
    await sealed_under(three, SECOND, ref(3, Provider.DB))

    assert [1, 2] == await listed(three)


def version_of(*, used_as: str | None, tenant: str = "acme", name: str = "n", state: str = "active") -> Exposed:
    """Return a version that its endpoint uses in this way."""
    return Exposed(
        tenant_id=tenant,  # type: ignore[arg-type]
        name=name,
        version=1,
        ref="r",
        purpose="p",
        state=state,
        endpoint_id=ENDPOINT,
        generation=1,
        used_as=used_as,
    )


@pytest.mark.req("SEC-22")
@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (version_of(used_as="current"), Remedy.ROTATION),
        (version_of(used_as="previous"), Remedy.NONE),
        (version_of(used_as="headers"), Remedy.NEW_HEADER_VALUES),
        (version_of(used_as=None), Remedy.NONE),
        (version_of(used_as=None, tenant="_system", name="integrity"), Remedy.NEW_INTEGRITY_KEY),
        (version_of(used_as=None, tenant="_system", name="integrity", state="previous"), Remedy.NONE),
        (version_of(used_as=None, tenant="_system", name="sentinel"), Remedy.NONE),
        (version_of(used_as=None, tenant="acme", name="integrity"), Remedy.NONE),
    ],
)
def test_each_version_has_its_remedy(found: Exposed, remedy: Remedy) -> None:
    assert remedy is found.remedy


@pytest.mark.req("SEC-22")
def test_a_cursor_decodes_to_its_version() -> None:
    found = version_of(used_as=None)
    assert found.place == place_of(cursor_of(found))


@pytest.mark.req("SEC-22")
@pytest.mark.parametrize("place", ["acme/n", "acme/n/1/2", "acme/n/x", "acme/n/-1", "ac\0me/n/1", f"acme/n/{10**18}"])
def test_an_invalid_cursor_is_malformed(place: str) -> None:
    for text in (ids.encode_cursor(place), "%%%", place):
        with pytest.raises(Malformed):
            place_of(text)
