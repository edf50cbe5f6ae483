"""Batches of a re-wrap: which records they change, which they skip, and what they write."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from hookseal.errors import Defect, SecretUnavailable
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.envelope import HEAD_BYTES, open_sealed, rewrapped, seal
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext
from hookseal.secrets.key import rewrap
from hookseal.secrets.key.keys import use
from hookseal.secrets.key.rewrap import BEGINNING, Batch, Cursor, Unopened, altered, batch
from hookseal.secrets.store import records
from tests.secrets.key.registered import register, sealed_under
from tests.secrets.samples import FIRST, NAME, OTHER_SECRET, OTHER_TENANT, RING, SECOND, SECRET, TENANT, THIRD, ref
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-05")

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


async def test_each_batch_continues_after_the_last(five: Pool) -> None:
    """Each batch continues after the one before; the last one, which is not full, has no `last`."""
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


async def test_after_a_full_batch_nothing_may_be_left(five: Pool) -> None:
    """If the last batch is full, the next one is empty and says that nothing is left."""
    await five.execute("DELETE FROM hookseal.secret_records WHERE version = 3")
    first = await one(five)
    assert first.last == (TENANT, NAME, 2)
    second = await one(five, first.last)
    assert second.last == (OTHER_TENANT, NAME, 2)
    assert (0, None) == ((third := await one(five, second.last)).moved, third.last)


async def test_a_later_re_wrap_finds_the_rest(five: Pool) -> None:
    """A re-wrap that starts later finds the remaining records in the table."""
    await one(five)
    assert [2, 1, 0] == [(await one(five)).moved for _ in range(3)]
    assert ["2"] * 5 == await keys_of(five)


async def test_a_locked_record_is_skipped(five: Pool) -> None:
    """A locked record is skipped without waiting; with `wait` the batch waits for the lock and re-wraps the record."""
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


async def test_a_record_changed_meanwhile_is_skipped(five: Pool) -> None:
    """A record that was destroyed or re-wrapped during the wait stays as it is; the next batch continues after it."""
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
    rows = await five.fetch(ROWS)
    assert [SECOND.key_id, SECOND.key_id, None, SECOND.key_id, SECOND.key_id] == [row["key_id"] for row in rows]
    assert (None, "destroyed", [FIRST.key_id]) == (rows[2]["sealed"], rows[2]["state"], rows[2]["wrapped_by"])


async def test_a_waiting_batch_does_not_deadlock_with_a_rollback(five: Pool) -> None:
    """A rollback locks the newer version, and then the older one: a batch that waits does not deadlock with it."""
    newer, older = ref(2, Provider.DB), ref(1, Provider.DB)
    await five.execute("UPDATE hookseal.secret_records SET state = 'active' WHERE ref = $1", str(newer))
    async with five.acquire() as connection, connection.transaction():
        await records.retire(connection, newer)  # the first statement of `arrange`
        waiting = asyncio.create_task(one(five, wait=True))

        async def has_come_to_it() -> bool:
            return waiting.done() or bool(await five.fetchval(WAITS))

        await eventually(has_come_to_it)
        await records.arrange(connection, active=older, previous=None)
    done = await waiting

    assert (1, (TENANT, NAME, 1)) == (done.moved, done.last)
    assert [2, 2, 0] == [(await one(five, wait=True)).moved for _ in range(3)]
    assert ["active"] == [row["state"] for row in await five.fetch(ROWS) if row["ref"] == str(older)]


async def test_concurrent_batches_take_different_records(five: Pool) -> None:
    """Concurrent batches take different records, and together each record exactly once."""
    done = await asyncio.gather(*(one(five) for _ in range(5)))

    assert 5 >= sum(each.moved for each in done)
    while (await one(five)).moved:
        pass
    rows = await five.fetch(ROWS)
    assert [[FIRST.key_id, SECOND.key_id]] * 5 == [row["wrapped_by"] for row in rows]


async def test_a_batch_writes_head_and_key(five: Pool) -> None:
    """A batch writes head, key and list of keys; body and times stay, since retention counts from `changed_at`."""
    before = await five.fetch(ROWS)
    digests = {(await one(five, wait=True)).digest for _ in range(3)}

    assert 3 == len(digests)
    for was, row in zip(before, await five.fetch(ROWS), strict=True):
        assert was["sealed"][HEAD_BYTES:] == row["sealed"][HEAD_BYTES:]
        assert (was["state"], was["created_at"], was["changed_at"]) == (
            row["state"],
            row["created_at"],
            row["changed_at"],
        )


async def test_the_list_of_keys_grows_once(five: Pool) -> None:
    """Each key is in the list once, in the order in which the keys first sealed the record."""
    for ring, key in ((BOTH, FIRST), (KeyRing(THIRD, (SECOND,)), SECOND), (KeyRing(FIRST, (THIRD,)), THIRD)):
        async with five.acquire() as connection, connection.transaction():
            await batch(connection, ring, key.key_id, BEGINNING, wait=False)
    await one(five)

    row = (await five.fetch(ROWS))[0]
    assert ([FIRST.key_id, SECOND.key_id, THIRD.key_id], SECOND.key_id) == (row["wrapped_by"], row["key_id"])


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
    """A record that does not open is reported and left unchanged; all other records are re-wrapped."""
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


async def test_an_altered_body_is_not_read(five: Pool) -> None:
    """A re-wrap does not read the body: an altered body stays the same, byte for byte."""
    await five.execute("UPDATE hookseal.secret_records SET sealed = sealed || 'x' WHERE version = 1")
    before = [row["sealed"][HEAD_BYTES:] for row in await five.fetch(ROWS)]
    for _ in range(3):
        await one(five)

    assert before == [row["sealed"][HEAD_BYTES:] for row in await five.fetch(ROWS)]
    assert ["2"] * 5 == await keys_of(five)


async def test_a_newer_head_is_not_overwritten(five: Pool) -> None:
    """A record that changed after its head was read is not overwritten."""
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


@pytest.mark.parametrize("change", ["sealed = 'short'", "sealed = set_byte(sealed, 5, 255 - get_byte(sealed, 5))"])
async def test_a_record_under_an_unknown_key_is_reported(five: Pool, change: str) -> None:
    """A record that names an unknown key is in no batch; it is reported, and counts for the key that sealed it."""
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


async def test_a_closed_connection_is_unavailable(database_url: str) -> None:
    """On a closed connection, every call raises `SecretUnavailable`."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    for asking in (
        batch(connection, BOTH, FIRST.key_id, BEGINNING, wait=False),
        altered(connection, FIRST.key_id),
        rewrap._write(connection, SECOND.key_id, []),
    ):
        with pytest.raises(SecretUnavailable):
            await asking
