"""The store `db`, against hands in the database and against outages."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from hookseal.ground.errors import HooksealError
from hookseal.schema.database import Pool
from hookseal.secrets.context import Purpose
from hookseal.secrets.envelope import key_id_of
from hookseal.secrets.errors import (
    ContextMismatch,
    KeyRetired,
    KeyUnknown,
    RecordMalformed,
    SecretDenied,
    SecretNotFound,
    SecretTampered,
    SecretUnavailable,
)
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.store import VersionState
from hookseal.secrets.stores.postgres import PostgresStore
from tests.secrets.registered import register
from tests.secrets.samples import FIRST, NAME, OTHER_SECRET, OTHER_TENANT, RING, SECOND, SECRET, TENANT, ref

SIGNING = Purpose.WEBHOOK_SIGNING
RECORDS = "SELECT * FROM hookseal.secret_records ORDER BY tenant_id, name, version"
Call = Callable[[PostgresStore], Awaitable[object]]

CALLS: list[Call] = [
    lambda store: store.put(TENANT, "new", SECRET, purpose=SIGNING),
    lambda store: store.get(ref(1, Provider.DB), purpose=SIGNING),
    lambda store: store.rotate(TENANT, NAME, SECRET, purpose=SIGNING),
    lambda store: store.versions(TENANT, NAME),
    lambda store: store.destroy(ref(1, Provider.DB)),
]


@pytest.fixture
async def store(pool: Pool) -> PostgresStore:
    """A store that holds two versions of the endpoint's secret."""
    await register(pool)
    store = PostgresStore(pool, RING)
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    return store


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (f"tenant_id = '{OTHER_TENANT}'", f"db:{OTHER_TENANT}:{NAME}:1"),
        ("name = 'other'", f"db:{TENANT}:other:1"),
        ("version = 3", f"db:{TENANT}:{NAME}:3"),
    ],
)
async def test_a_row_moved_by_hand_does_not_open(store: PostgresStore, pool: Pool, change: str, moved: str) -> None:
    """A record under another tenant, name or version than its own is refused there, and is gone from its place."""
    await pool.execute(f"UPDATE hookseal.secret_records SET {change} WHERE version = 1")  # noqa: S608

    with pytest.raises(ContextMismatch):
        await store.get(SecretRef.parse(moved), purpose=SIGNING)
    with pytest.raises(SecretNotFound):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-03")
async def test_sealed_bytes_swapped_between_rows_do_not_open(store: PostgresStore, pool: Pool) -> None:
    """Two versions that exchanged their records give neither secret."""
    await pool.execute(
        "UPDATE hookseal.secret_records r SET sealed = o.sealed FROM hookseal.secret_records o "
        "WHERE o.version = 3 - r.version"
    )
    for version in (1, 2):
        with pytest.raises(ContextMismatch):
            await store.get(ref(version, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-03")
async def test_a_purpose_changed_by_hand_does_not_open(store: PostgresStore, pool: Pool) -> None:
    """The purpose in the row is only what is asked first; the record itself refuses another."""
    await pool.execute("UPDATE hookseal.secret_records SET purpose = 'integrity'")

    with pytest.raises(SecretDenied):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)
    with pytest.raises(ContextMismatch):
        await store.get(ref(1, Provider.DB), purpose=Purpose.INTEGRITY)


async def test_a_purpose_that_nobody_knows_is_tampering(store: PostgresStore, pool: Pool) -> None:
    """Versions of a row with an unknown purpose are not told as if they were sound."""
    await pool.execute("UPDATE hookseal.secret_records SET purpose = 'other' WHERE version = 1")

    with pytest.raises(SecretTampered):
        await store.versions(TENANT, NAME)


@pytest.mark.req("SEC-03")
async def test_a_record_overwritten_by_hand_does_not_open(store: PostgresStore, pool: Pool) -> None:
    """Bytes that are no record, plaintext above all, are never taken for a secret."""
    await pool.execute("UPDATE hookseal.secret_records SET sealed = $1 WHERE version = 1", SECRET.reveal())

    with pytest.raises(RecordMalformed):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)


async def test_a_row_of_another_provider_is_not_found(store: PostgresStore, pool: Pool) -> None:
    """A version whose material lies elsewhere is not answered for by this store."""
    await pool.execute(
        "UPDATE hookseal.secret_records SET provider = 'aws', sealed = NULL, key_id = NULL WHERE version = 1"
    )

    with pytest.raises(SecretNotFound):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)
    assert [2] == [version.ref.version for version in await store.versions(TENANT, NAME)]
    assert 3 == (await store.rotate(TENANT, NAME, SECRET, purpose=SIGNING)).version


@pytest.mark.req("SEC-03")
async def test_keys_unknown_and_retired_are_refused(store: PostgresStore, pool: Pool) -> None:
    """A store without the record's key, and one for which it is retired, each say so."""
    with pytest.raises(KeyUnknown, match=FIRST.key_id):
        await PostgresStore(pool, KeyRing(SECOND)).get(ref(1, Provider.DB), purpose=SIGNING)
    with pytest.raises(KeyRetired, match=FIRST.key_id):
        await PostgresStore(pool, KeyRing(SECOND, (FIRST,), retired=[FIRST.key_id])).get(
            ref(1, Provider.DB), purpose=SIGNING
        )
    assert SECRET == await PostgresStore(pool, KeyRing(SECOND, (FIRST,))).get(ref(1, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-15", part="secrets")
async def test_no_secret_stands_in_the_database(store: PostgresStore, pool: Pool) -> None:
    """No column of the table holds a secret, as text or in bytes; each row names the key it is sealed under."""
    rows = await pool.fetch(RECORDS)

    for row in rows:
        written = repr(tuple(row))
        assert row["key_id"] == key_id_of(row["sealed"]) == FIRST.key_id
        for secret in (SECRET, OTHER_SECRET):
            assert secret.reveal().decode() not in written
            assert secret.reveal()[6:18] not in row["sealed"]
    assert VersionState.ACTIVE == (await store.versions(TENANT, NAME))[1].state


async def test_destroyed_material_leaves_the_row(store: PostgresStore, pool: Pool) -> None:
    """After `destroy` the sealed bytes and the key id are null; the row stays."""
    await store.destroy(ref(1, Provider.DB))
    row = await pool.fetchrow("SELECT state, sealed, key_id FROM hookseal.secret_records WHERE version = 1")

    assert row is not None
    assert ("destroyed", None, None) == tuple(row)


@pytest.mark.parametrize("call", [CALLS[0], CALLS[2], CALLS[4]], ids=["put", "rotate", "destroy"])
async def test_on_a_connection_it_joins_the_callers_transaction(store: PostgresStore, pool: Pool, call: Call) -> None:
    """What is done on a connection is undone with the transaction that the caller has open there."""
    before = await pool.fetch(RECORDS)
    async with pool.acquire() as connection:
        outer = connection.transaction()
        await outer.start()
        await call(store.joined_to(connection))
        assert before != await connection.fetch(RECORDS)
        await outer.rollback()

    assert before == await pool.fetch(RECORDS)


async def test_a_refusal_leaves_the_callers_transaction_usable(store: PostgresStore, pool: Pool) -> None:
    """A name that is taken is a conflict after which the caller's transaction can still commit."""
    async with pool.acquire() as connection, connection.transaction():
        joined = store.joined_to(connection)
        with pytest.raises(HooksealError):
            await joined.put(TENANT, NAME, SECRET, purpose=SIGNING)
        with pytest.raises(HooksealError):
            await joined.rotate(TENANT, "none", SECRET, purpose=SIGNING)
        await joined.put(TENANT, "new", SECRET, purpose=SIGNING)

    assert 1 == len(await store.versions(TENANT, "new"))


async def test_a_rotation_that_dies_before_its_commit_leaves_the_old_state(
    store: PostgresStore, pool: Pool, database_url: str
) -> None:
    """A connection that is cut before the commit leaves no version and moves no state; the next rotation goes on."""
    before = await pool.fetch(RECORDS)
    doomed = await asyncpg.connect(database_url)
    await doomed.transaction().start()
    await store.joined_to(doomed).rotate(TENANT, NAME, SECRET, purpose=SIGNING)
    waiting = asyncio.ensure_future(store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING))
    doomed.terminate()

    assert 3 == (await waiting).version
    assert before[0]["created_at"] == (await pool.fetch(RECORDS))[0]["created_at"]
    assert ["retired", "previous", "active"] == [row["state"] for row in await pool.fetch(RECORDS)]


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("call", CALLS, ids=["put", "get", "rotate", "versions", "destroy"])
async def test_a_database_that_does_not_answer_is_unavailable(database_url: str, call: Call) -> None:
    """With the pool closed or the connection cut every call is transient, naming only the type of the cause."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as closed:
        pass
    connection = await asyncpg.connect(database_url)
    connection.terminate()

    for source in (closed, connection):
        with pytest.raises(SecretUnavailable, match=r"does not answer \(\w+\)$"):
            await call(PostgresStore(source, RING))


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("call", CALLS, ids=["put", "get", "rotate", "versions", "destroy"])
async def test_a_role_without_the_right_is_denied(store: PostgresStore, pool: Pool, call: Call) -> None:
    """A SQL role that may not touch the table gets a definitive answer, which names no value."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE pg_read_all_settings")
        with pytest.raises(SecretDenied, match="SQL role"):
            await call(store.joined_to(connection))
