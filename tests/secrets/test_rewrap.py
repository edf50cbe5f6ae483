"""Batches of a re-wrap: which records they take, which they leave, and what they write of each."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from hookseal.ground.errors import Defect
from hookseal.schema.database import Pool
from hookseal.secrets import rewrap
from hookseal.secrets.context import Purpose, SecretContext
from hookseal.secrets.envelope import HEAD_BYTES, open_sealed, rewrapped, seal
from hookseal.secrets.errors import SecretUnavailable
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.ref import Provider
from hookseal.secrets.rewrap import BEGINNING, Batch, Place, Unopened, batch, misnamed
from tests.secrets.registered import sealed_under
from tests.secrets.samples import FIRST, NAME, OTHER_SECRET, OTHER_TENANT, RING, SECOND, SECRET, TENANT, THIRD, ref
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-05")

BOTH = KeyRing(SECOND, (FIRST,))
ROWS = "SELECT * FROM hookseal.secret_records ORDER BY tenant_id, name, version"
WAITS = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def five(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Five versions under the first key, of two tenants, and batches of two; the versions are retired."""
    monkeypatch.setattr(rewrap, "BATCH", 2)
    for version in (1, 2, 3):
        await sealed_under(pool, FIRST, ref(version, Provider.DB))
        await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
    for version in (1, 2):
        await sealed_under(pool, FIRST, replace(ref(version, Provider.DB), tenant=OTHER_TENANT))
        await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
    return pool


async def one(pool: Pool, after: Place = BEGINNING, *, wait: bool = False, ring: KeyRing = BOTH) -> Batch:
    """Re-wrap one batch, in a transaction of its own."""
    async with pool.acquire() as connection, connection.transaction():
        return await batch(connection, ring, FIRST.key_id, after, wait=wait)


async def keys_of(pool: Pool) -> list[str]:
    """Return which key each record names, in their order: 1 or 2."""
    return ["1" if row["key_id"] == FIRST.key_id else "2" for row in await pool.fetch(ROWS)]


async def test_batch_after_batch(five: Pool) -> None:
    """Each goes on behind the one before it; the last one, which is not full, says that it is the last."""
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


async def test_a_full_batch_at_the_end(five: Pool) -> None:
    """Where the last batch is full another one says that there is nothing behind it."""
    await five.execute("DELETE FROM hookseal.secret_records WHERE version = 3")
    first = await one(five)
    assert first.last == (TENANT, NAME, 2)
    second = await one(five, first.last)
    assert second.last == (OTHER_TENANT, NAME, 2)
    assert (0, None) == ((third := await one(five, second.last)).moved, third.last)


async def test_who_comes_later_finds_the_rest(five: Pool) -> None:
    """The table says what is left: one that knows of no batch before goes on where it is."""
    await one(five)
    assert [2, 1, 0] == [(await one(five)).moved for _ in range(3)]
    assert ["2"] * 5 == await keys_of(five)


async def test_what_others_hold(five: Pool) -> None:
    """It is passed over the first time, with nobody waiting; the second time it is waited for, and is re-wrapped."""
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
    assert ["2", "2", "2", "2", "1"] == await keys_of(five)  # each is the next one and the one behind it


async def test_what_others_destroyed_or_re_wrapped(five: Pool) -> None:
    """What is no more under the key once it is let go is left as it is then, and the batch takes the next ones."""
    async with five.acquire() as connection:
        held = connection.transaction()
        await held.start()
        await batch(connection, BOTH, FIRST.key_id, BEGINNING, wait=True)
        await connection.execute(
            "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL, key_id = NULL WHERE version = 3"
        )
        waiting = asyncio.create_task(one(five, wait=True))
        await eventually(lambda: five.fetchval(WAITS))
        await held.commit()

    assert 2 == (await waiting).moved
    rows = await five.fetch(ROWS)
    assert [SECOND.key_id, SECOND.key_id, None, SECOND.key_id, SECOND.key_id] == [row["key_id"] for row in rows]
    assert (None, "destroyed", [FIRST.key_id]) == (rows[2]["sealed"], rows[2]["state"], rows[2]["wrapped_by"])


async def test_two_beside_each_other(five: Pool) -> None:
    """Two take different records, and together all of them, each once."""
    done = await asyncio.gather(*(one(five) for _ in range(5)))

    assert 5 >= sum(each.moved for each in done)
    while (await one(five)).moved:
        pass
    rows = await five.fetch(ROWS)
    assert [[FIRST.key_id, SECOND.key_id]] * 5 == [row["wrapped_by"] for row in rows]


async def test_what_a_batch_writes(five: Pool) -> None:
    """Head, key and the list of keys; body and times stay, for retention counts from `changed_at`."""
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
    """Each key stands in it once, in the order in which they first sealed the record."""
    for ring, key in ((BOTH, FIRST), (KeyRing(THIRD, (SECOND,)), SECOND), (KeyRing(FIRST, (THIRD,)), THIRD)):
        async with five.acquire() as connection, connection.transaction():
            await batch(connection, ring, key.key_id, BEGINNING, wait=False)
    await one(five)

    row = (await five.fetch(ROWS))[0]
    assert ([FIRST.key_id, SECOND.key_id, THIRD.key_id], SECOND.key_id) == (row["wrapped_by"], row["key_id"])


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("purpose = 'nobody-s'", "record_malformed"),
        ("purpose = 'integrity'", "context_mismatch"),
        ("sealed = 'short'", "record_malformed"),
        ("sealed = '\\x0201'::bytea || substring(sealed FROM 3)", "record_malformed"),
        ("sealed = set_byte(sealed, 5, 255 - get_byte(sealed, 5))", "record_tampered"),
        ("sealed = set_byte(sealed, 20, 255 - get_byte(sealed, 20))", "context_mismatch"),
        ("sealed = set_byte(sealed, 100, 255 - get_byte(sealed, 100))", "record_tampered"),
        ("name = 'renamed'", "context_mismatch"),
        ("tenant_id = 'renamed'", "context_mismatch"),
        ("version = 9", "context_mismatch"),
    ],
)
async def test_a_record_that_does_not_open(five: Pool, spoil: str, code: str) -> None:
    """It is named and left exactly as it is; its neighbours of the batch are re-wrapped, and the next batch comes."""
    await five.execute(f"UPDATE hookseal.secret_records SET {spoil} WHERE tenant_id = '{TENANT}' AND version = 1")  # noqa: S608
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


async def test_a_record_whose_body_is_spoilt(five: Pool) -> None:
    """A re-wrap does not see the body: it stays as spoilt as it was, byte for byte."""
    await five.execute("UPDATE hookseal.secret_records SET sealed = sealed || 'x' WHERE version = 1")
    before = [row["sealed"][HEAD_BYTES:] for row in await five.fetch(ROWS)]
    for _ in range(3):
        await one(five)

    assert before == [row["sealed"][HEAD_BYTES:] for row in await five.fetch(ROWS)]
    assert ["2"] * 5 == await keys_of(five)


async def test_what_was_written_since_is_not_overwritten(five: Pool) -> None:
    """The statement compares the head that was read: a record that somebody wrote meanwhile stays as they wrote it."""
    row = (await five.fetch(ROWS))[0]
    context = SecretContext(tenant=TENANT, name=NAME, version=1, purpose=Purpose.WEBHOOK_SIGNING)
    head = row["sealed"][:HEAD_BYTES]
    anew = rewrapped(BOTH, head, context, of=FIRST.key_id)
    written = seal(RING, OTHER_SECRET, context)
    await five.execute(
        "UPDATE hookseal.secret_records SET sealed = $1 WHERE tenant_id = $2 AND version = 1", written, TENANT
    )
    statement = rewrap._SQL["write"]
    said = await five.execute(statement, SECOND.key_id, [TENANT], [NAME], [1], [head], [anew], HEAD_BYTES)

    assert "UPDATE 0" == said
    assert (written, FIRST.key_id) == tuple((await five.fetch(ROWS))[0])[6:8]


async def test_a_batch_never_tells_of_more_than_it_wrote(five: Pool) -> None:
    """If a record that is held is not written after all, nothing of the batch is: its digest would not be true."""
    await five.execute(
        "CREATE FUNCTION hookseal.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER keeps BEFORE UPDATE ON hookseal.secret_records FOR EACH ROW WHEN (OLD.version = 2)"
        " EXECUTE FUNCTION hookseal.keep()"
    )
    with pytest.raises(Defect, match="written by somebody else"):
        await one(five)

    assert ["1"] * 5 == await keys_of(five)


async def test_misnamed_records(five: Pool) -> None:
    """Records that name the key inside and another beside are found, whoever they belong to."""
    async with five.acquire() as connection:
        assert () == await misnamed(connection, FIRST.key_id)
        await five.execute("UPDATE hookseal.secret_records SET key_id = $1 WHERE version = 1", SECOND.key_id)
        found = await misnamed(connection, FIRST.key_id)
        assert () == await misnamed(connection, SECOND.key_id)

    assert [(TENANT, NAME, 1), (OTHER_TENANT, NAME, 1)] == [(one.tenant_id, one.name, one.version) for one in found]
    assert {"key_id_altered"} == {one.code for one in found}


async def test_an_outage(database_url: str) -> None:
    """A connection that was cut is an outage, whatever was asked."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    for asking in (
        batch(connection, BOTH, FIRST.key_id, BEGINNING, wait=False),
        misnamed(connection, FIRST.key_id),
        rewrap._write(connection, SECOND.key_id, []),
    ):
        with pytest.raises(SecretUnavailable):
            await asking
