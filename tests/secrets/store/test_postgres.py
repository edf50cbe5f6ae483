"""The store `db` under manual changes of the database and during outages."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import asyncpg
import pytest

from hookseal.embedded.server import Server
from hookseal.errors import (
    ContextMismatch,
    HooksealError,
    KeyRetired,
    KeyUnknown,
    RecordMalformed,
    SecretDenied,
    SecretNotFound,
    SecretTampered,
    SecretUnavailable,
)
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.envelope import key_id_of
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.store.port import VersionState
from hookseal.secrets.store.postgres import PostgresStore
from tests.secrets.key.registered import register
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
    """Return a store with two versions of the endpoint's secret."""
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
    """A record that was moved to another tenant, name or version is refused there and missing at its place."""
    await pool.execute(f"UPDATE hookseal.secret_records SET {change} WHERE version = 1")  # noqa: S608

    with pytest.raises(ContextMismatch):
        await store.get(SecretRef.parse(moved), purpose=SIGNING)
    with pytest.raises(SecretNotFound):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-03")
async def test_sealed_bytes_swapped_between_rows_do_not_open(store: PostgresStore, pool: Pool) -> None:
    """Two versions with exchanged records are both refused."""
    await pool.execute(
        "UPDATE hookseal.secret_records r SET sealed = o.sealed FROM hookseal.secret_records o "
        "WHERE o.version = 3 - r.version"
    )
    for version in (1, 2):
        with pytest.raises(ContextMismatch):
            await store.get(ref(version, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-03")
async def test_a_purpose_changed_by_hand_does_not_open(store: PostgresStore, pool: Pool) -> None:
    """If the purpose in a row was changed, neither the old nor the new purpose opens the record."""
    await pool.execute("UPDATE hookseal.secret_records SET purpose = 'integrity'")

    with pytest.raises(SecretDenied):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)
    with pytest.raises(ContextMismatch):
        await store.get(ref(1, Provider.DB), purpose=Purpose.INTEGRITY)


async def test_an_unknown_purpose_is_tampering(store: PostgresStore, pool: Pool) -> None:
    """If a row has an unknown purpose, listing the versions reports tampering."""
    await pool.execute("UPDATE hookseal.secret_records SET purpose = 'other' WHERE version = 1")

    with pytest.raises(SecretTampered):
        await store.versions(TENANT, NAME)


@pytest.mark.req("SEC-03")
async def test_a_record_overwritten_by_hand_does_not_open(store: PostgresStore, pool: Pool) -> None:
    """Bytes that are not a record, such as plaintext, are never used as a secret."""
    await pool.execute("UPDATE hookseal.secret_records SET sealed = $1 WHERE version = 1", SECRET.reveal())

    with pytest.raises(RecordMalformed):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)


async def test_a_row_of_another_provider_is_not_found(store: PostgresStore, pool: Pool) -> None:
    """A version of another provider is not found in this store."""
    await pool.execute("UPDATE hookseal.secret_records SET provider = 'aws', sealed = NULL WHERE version = 1")

    with pytest.raises(SecretNotFound):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)
    assert [2] == [version.ref.version for version in await store.versions(TENANT, NAME)]
    assert 3 == (await store.rotate(TENANT, NAME, SECRET, purpose=SIGNING)).version


@pytest.mark.req("SEC-03")
async def test_missing_and_retired_keys_have_different_errors(store: PostgresStore, pool: Pool) -> None:
    """A missing key and a retired key of a record are two different errors."""
    with pytest.raises(KeyUnknown, match=FIRST.key_id):
        await PostgresStore(pool, KeyRing(SECOND)).get(ref(1, Provider.DB), purpose=SIGNING)
    with pytest.raises(KeyRetired, match=FIRST.key_id):
        await PostgresStore(pool, KeyRing(SECOND, (FIRST,), retired=[FIRST.key_id])).get(
            ref(1, Provider.DB), purpose=SIGNING
        )
    assert SECRET == await PostgresStore(pool, KeyRing(SECOND, (FIRST,))).get(ref(1, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-15", part="secrets")
async def test_no_column_contains_a_secret(store: PostgresStore, pool: Pool) -> None:
    """No column of the table contains a secret as text or bytes; each row names the key of its record."""
    rows = await pool.fetch(RECORDS)

    for row in rows:
        written = repr(tuple(row))
        assert row["key_id"] == key_id_of(row["sealed"]) == FIRST.key_id
        for secret in (SECRET, OTHER_SECRET):
            assert secret.reveal().decode() not in written
            assert secret.reveal()[6:18] not in row["sealed"]
    assert VersionState.ACTIVE == (await store.versions(TENANT, NAME))[1].state


async def test_a_destroyed_version_keeps_its_row(store: PostgresStore, pool: Pool) -> None:
    """After `destroy` the sealed bytes and the key id are null; the row remains."""
    await store.destroy(ref(1, Provider.DB))
    row = await pool.fetchrow("SELECT state, sealed, key_id FROM hookseal.secret_records WHERE version = 1")

    assert row is not None
    assert ("destroyed", None, None) == tuple(row)


@pytest.mark.parametrize("call", [CALLS[0], CALLS[2], CALLS[4]], ids=["put", "rotate", "destroy"])
async def test_a_call_on_a_connection_joins_its_transaction(store: PostgresStore, pool: Pool, call: Call) -> None:
    """Calls on a connection are part of the caller's transaction and are rolled back with it."""
    before = await pool.fetch(RECORDS)
    async with pool.acquire() as connection:
        outer = connection.transaction()
        await outer.start()
        await call(store.joined_to(connection))
        assert before != await connection.fetch(RECORDS)
        await outer.rollback()

    assert before == await pool.fetch(RECORDS)


async def test_a_refusal_leaves_the_callers_transaction_usable(store: PostgresStore, pool: Pool) -> None:
    """After a conflict the caller's transaction can still commit."""
    async with pool.acquire() as connection, connection.transaction():
        joined = store.joined_to(connection)
        with pytest.raises(HooksealError):
            await joined.put(TENANT, NAME, SECRET, purpose=SIGNING)
        with pytest.raises(HooksealError):
            await joined.rotate(TENANT, "none", SECRET, purpose=SIGNING)
        await joined.put(TENANT, "new", SECRET, purpose=SIGNING)

    assert 1 == len(await store.versions(TENANT, "new"))


async def test_a_rotation_lost_before_its_commit_changes_nothing(
    store: PostgresStore, pool: Pool, database_url: str
) -> None:
    """A rotation whose connection is lost before the commit changes nothing, and the next one succeeds."""
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
async def test_an_unreachable_database_is_unavailable(database_url: str, call: Call) -> None:
    """With a closed pool or connection, every call raises a transient error that names only the type of the cause."""
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
    """A role without the right to the table gets a definitive error without any value."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE pg_read_all_settings")
        with pytest.raises(SecretDenied, match="SQL role"):
            await call(store.joined_to(connection))


@pytest.mark.req("SEC-08")
async def test_reads_of_one_turn_are_one_statement(store: PostgresStore, database_url: str) -> None:
    """Reads of a hundred tenants in one turn are one statement, and each gets its own secret."""
    tenants = [TenantId(f"tenant{number}") for number in range(100)]
    put = {
        await store.put(tenant, NAME, SecretMaterial(tenant.encode()), purpose=SIGNING): tenant for tenant in tenants
    }
    missing = replace(ref(1, Provider.DB), version=7)
    taken: list[object] = []

    async def record(connection: object) -> None:
        taken.append(connection)

    async with asyncpg.create_pool(database_url, min_size=1, max_size=10, setup=record) as counting:
        other = PostgresStore(counting, RING)
        found = await asyncio.gather(
            *[other.get(each, purpose=SIGNING) for each in (*put, missing)], return_exceptions=True
        )

    assert [SecretMaterial(tenant.encode()) for tenant in put.values()] == found[:-1]
    assert isinstance(found[-1], SecretNotFound)
    assert len(taken) == 1


@pytest.mark.req("SEC-07")
async def test_a_read_from_a_frozen_server_fails_within_two_seconds(own_postgres: Server) -> None:
    """While PostgreSQL is frozen a read fails within two seconds; after that the next one succeeds."""
    async with asyncpg.create_pool(own_postgres.url, min_size=2, max_size=10) as pool:
        await register(pool)
        store = PostgresStore(pool, RING)
        stored = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
        own_postgres.freeze()
        with pytest.raises(SecretUnavailable, match="TimeoutError"):
            await store.get(stored, purpose=SIGNING)
        own_postgres.thaw()

        assert SECRET == await store.get(stored, purpose=SIGNING)
