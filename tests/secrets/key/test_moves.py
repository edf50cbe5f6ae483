"""Moves of a master key in its table: what each writes, and what needs or has a key."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from hookseal.errors import NotFound, SecretUnavailable
from hookseal.postgres.pool import Connection, Pool
from hookseal.secrets.core.key_rules import KeyState, Use
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key import keys as moves
from tests.secrets.key.registered import register, sealed_under
from tests.secrets.samples import ENDPOINT, FIRST, OTHER_ENDPOINT, OTHER_TENANT, SECOND, TENANT, THIRD, ref

pytestmark = pytest.mark.req("SEC-05")

WORKER = """
INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, beaten_at)
VALUES ($1, '0', 25, 45, $2, now() - make_interval(secs => $3))
"""
EVENTS = """
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT $1, 'e' || n, 'invoice.paid', now(), '', '' FROM generate_series(0, 9) AS n
"""
DELIVERY = """
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, lease_token, lease_owner,
                                lease_expires_at, claimed_number, claimed_at, claimed_refs)
VALUES ($1, hookseal.uuid7(), $2::text::uuid, $3, $4::text, CASE $4 WHEN 'pending' THEN now() END,
        CASE $4 WHEN 'sending' THEN hookseal.uuid7() END, 'w', now(), 1, now(), '{}')
"""
Move = Callable[[Connection, str], Awaitable[None]]


async def kept(pool: Pool) -> dict[str, dict[str, Any]]:
    """Return the table of keys."""
    return {row["key_id"]: dict(row) for row in await pool.fetch("SELECT * FROM hookseal.secret_keys")}


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
    """A move writes the key's state and time; only `promote` changes another key, the former active one."""
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


async def test_a_key_is_registered_as_staged(pool: Pool) -> None:
    """A new key is staged, with its check value and no times of moves."""
    async with pool.acquire() as connection:
        assert await moves.known(connection, FIRST.key_id) is None
        await moves.register(connection, FIRST)
        life = await moves.life(connection, FIRST.key_id)

    row = (await kept(pool))[FIRST.key_id]
    assert (FIRST.check_value, "staged") == (row["check_value"], row["state"])
    assert (KeyState.STAGED, None, None, None, None, None) == (
        life.state,
        *(life.promoted_at, life.drained_at, life.compromised_at, life.retired_at, life.destroyed_at),
    )


async def test_first_times_stay(pool: Pool) -> None:
    """A repeated move keeps the first `promoted_at` and `compromised_at`; a promotion clears `drained_at`."""
    long_ago = datetime.now(UTC) - timedelta(days=400)
    await register(pool, FIRST, "decrypt_only")
    await pool.execute(
        "UPDATE hookseal.secret_keys SET promoted_at = $1, compromised_at = $1, drained_at = $1", long_ago
    )
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


async def test_an_unregistered_key_is_not_found(pool: Pool) -> None:
    """A key that is not registered is not found."""
    async with pool.acquire() as connection:
        with pytest.raises(NotFound, match=f"no master key {FIRST.key_id}"):
            await moves.life(connection, FIRST.key_id)


async def test_workers_with_and_without_the_key_are_listed(pool: Pool) -> None:
    """Workers with a recent heartbeat are listed as having the key or as lacking it; others are not listed."""
    for name, keys, seconds_ago in (
        ("b", [FIRST, SECOND], 0),
        ("a", [SECOND], 14),
        ("c", [FIRST], 0),
        ("none", [], 1),
        ("lost", [FIRST], 16),
        ("lost-too", [SECOND], 16),
    ):
        await pool.execute(WORKER, name, [key.key_id for key in keys], seconds_ago)
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


async def test_records_and_unsent_deliveries_need_a_key(pool: Pool) -> None:
    """A key is needed by the records that name it and by the unsent deliveries of their endpoints."""
    await register(pool, SECOND)
    assert Use(records=0, deliveries=0) == await needing(pool)
    await sealed_under(pool, FIRST)
    await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
    await sealed_under(pool, FIRST, ref(2, Provider.DB))
    await sealed_under(pool, SECOND, replace(ref(1, Provider.DB), tenant=OTHER_TENANT))
    for tenant in (TENANT, OTHER_TENANT):
        await pool.execute(EVENTS, tenant)
        for number, state in enumerate(("pending", "sending", "delivered", "dead_letter", "failed", "cancelled")):
            await pool.execute(DELIVERY, tenant, ENDPOINT, f"e{number}", state)
    await pool.execute(DELIVERY, TENANT, OTHER_ENDPOINT, "e9", "pending")
    assert Use(records=2, deliveries=2) == await needing(pool)

    await pool.execute("UPDATE hookseal.secret_records SET state = 'previous' WHERE state = 'active'")
    assert Use(records=2, deliveries=2) == await needing(pool)
    await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
    assert Use(records=2, deliveries=0) == await needing(pool)
    await pool.execute("UPDATE hookseal.secret_records SET sealed = $1", b"\1\1" + bytes.fromhex(FIRST.key_id))
    assert Use(records=3, deliveries=0) == await needing(pool)
    await pool.execute("UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL")
    assert Use(records=0, deliveries=0) == await needing(pool)


async def test_a_closed_connection_is_unavailable(database_url: str) -> None:
    """On a closed connection, every call raises `SecretUnavailable`."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    key_id = FIRST.key_id
    for asking in (
        moves.life(connection, key_id),
        moves.use(connection, key_id),
        moves.workers_with(connection, key_id, live_seconds=15),
        moves.workers_without(connection, key_id, live_seconds=15),
        moves.register(connection, FIRST),
        moves.promote(connection, key_id),
        moves.write_change(connection, key_id, "drained"),
        moves.write_change(connection, key_id, "compromised"),
        moves.write_change(connection, key_id, "retired"),
        moves.write_change(connection, key_id, "destroyed"),
    ):
        with pytest.raises(SecretUnavailable):
            await asking
