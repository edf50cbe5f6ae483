"""The stores dev and db, also under manual changes of the database and during outages, and the report of versions."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from hookseal.embedded.server import Server
from hookseal.errors import (
    ContextMismatch,
    HooksealError,
    Malformed,
    NotFound,
    RecordMalformed,
    SecretDenied,
    SecretNotFound,
    SecretTampered,
    SecretUnavailable,
)
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.envelope import key_id_of
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.store import version_report
from hookseal.secrets.store.dev import DevStore
from hookseal.secrets.store.port import VersionState
from hookseal.secrets.store.postgres import PostgresStore
from hookseal.secrets.store.version_report import need, require_known, signing_ref
from tests.doubles.clock import FakeClock
from tests.doubles.stored import begin
from tests.secrets.samples import ENDPOINT, FIRST, NAME, OTHER_SECRET, OTHER_TENANT, RING, SECRET, TENANT, ref, register

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
    await pool.execute(f"UPDATE hookseal.secret_records SET {change} WHERE version = 1")  # noqa: S608

    with pytest.raises(ContextMismatch):
        await store.get(SecretRef.parse(moved), purpose=SIGNING)
    with pytest.raises(SecretNotFound):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-03")
async def test_sealed_bytes_swapped_between_rows_do_not_open(store: PostgresStore, pool: Pool) -> None:
    await pool.execute(
        "UPDATE hookseal.secret_records r SET sealed = o.sealed FROM hookseal.secret_records o "
        "WHERE o.version = 3 - r.version"
    )
    for version in (1, 2):
        with pytest.raises(ContextMismatch):
            await store.get(ref(version, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-03")
async def test_a_purpose_changed_by_hand_does_not_open(store: PostgresStore, pool: Pool) -> None:
    await pool.execute("UPDATE hookseal.secret_records SET purpose = 'integrity'")

    with pytest.raises(SecretDenied):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)
    with pytest.raises(ContextMismatch):
        await store.get(ref(1, Provider.DB), purpose=Purpose.INTEGRITY)


async def test_an_unknown_purpose_is_tampering(store: PostgresStore, pool: Pool) -> None:
    await pool.execute("UPDATE hookseal.secret_records SET purpose = 'other' WHERE version = 1")

    with pytest.raises(SecretTampered):
        await store.versions(TENANT, NAME)


@pytest.mark.req("SEC-03")
async def test_a_record_overwritten_by_hand_does_not_open(store: PostgresStore, pool: Pool) -> None:
    await pool.execute("UPDATE hookseal.secret_records SET sealed = $1 WHERE version = 1", SECRET.reveal())

    with pytest.raises(RecordMalformed):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)


async def test_a_row_of_another_provider_is_not_found(store: PostgresStore, pool: Pool) -> None:
    await pool.execute("UPDATE hookseal.secret_records SET provider = 'aws', sealed = NULL WHERE version = 1")

    with pytest.raises(SecretNotFound):
        await store.get(ref(1, Provider.DB), purpose=SIGNING)
    assert [2] == [version.ref.version for version in await store.versions(TENANT, NAME)]
    assert 3 == (await store.rotate(TENANT, NAME, SECRET, purpose=SIGNING)).version


@pytest.mark.req("SEC-15", part="secrets")
async def test_no_column_contains_a_secret(store: PostgresStore, pool: Pool) -> None:
    rows = await pool.fetch(RECORDS)

    for row in rows:
        written = repr(tuple(row))
        assert row["key_id"] == key_id_of(row["sealed"]) == FIRST.key_id
        for secret in (SECRET, OTHER_SECRET):
            assert secret.reveal().decode() not in written
            assert secret.reveal()[6:18] not in row["sealed"]
    assert VersionState.ACTIVE == (await store.versions(TENANT, NAME))[1].state


@pytest.mark.parametrize("call", [CALLS[0], CALLS[2], CALLS[4]], ids=["put", "rotate", "destroy"])
async def test_a_call_on_a_connection_joins_its_transaction(store: PostgresStore, pool: Pool, call: Call) -> None:
    before = await pool.fetch(RECORDS)
    async with pool.acquire() as connection:
        outer = connection.transaction()
        await outer.start()
        await call(store.joined_to(connection))
        assert before != await connection.fetch(RECORDS)
        await outer.rollback()

    assert before == await pool.fetch(RECORDS)


async def test_a_refusal_leaves_the_callers_transaction_usable(store: PostgresStore, pool: Pool) -> None:
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
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE pg_read_all_settings")
        with pytest.raises(SecretDenied, match="SQL role"):
            await call(store.joined_to(connection))


@pytest.mark.req("SEC-08")
async def test_reads_of_one_turn_are_one_statement(store: PostgresStore, database_url: str) -> None:
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
    async with asyncpg.create_pool(own_postgres.url, min_size=2, max_size=10) as pool:
        await register(pool)
        store = PostgresStore(pool, RING)
        stored = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
        own_postgres.freeze()
        with pytest.raises(SecretUnavailable, match="TimeoutError"):
            await store.get(stored, purpose=SIGNING)
        own_postgres.thaw()

        assert SECRET == await store.get(stored, purpose=SIGNING)


# Which version of a secret is still needed, and which versions are known.

UNTIL = datetime(2026, 3, 1, tzinfo=UTC)
ACTIVE, PREVIOUS, RETIRED, DESTROYED = VersionState


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize(
    ("state", "signs", "until", "claims", "needed", "reason"),
    [
        pytest.param(ACTIVE, True, None, 0, True, "every new attempt is signed with it$", id="current"),
        pytest.param(ACTIVE, True, None, 7, True, "every new attempt is signed with it$", id="current-in-flight"),
        pytest.param(PREVIOUS, True, UNTIL, 0, True, "until its overlap ends$", id="overlap"),
        pytest.param(RETIRED, True, None, 0, True, "every new attempt is signed with it$", id="retired-by-hand"),
        pytest.param(DESTROYED, True, None, 0, True, "destroyed, so deliveries wait: rotate$", id="current-destroyed"),
        pytest.param(DESTROYED, True, UNTIL, 0, True, "destroyed, so deliveries wait: rotate$", id="overlap-destroyed"),
        pytest.param(PREVIOUS, False, None, 1, True, "wait until they end$", id="over-in-flight"),
        pytest.param(RETIRED, False, None, 2, True, "wait until they end$", id="retired-in-flight"),
        pytest.param(DESTROYED, False, None, 1, True, "wait until they end$", id="destroyed-in-flight"),
        pytest.param(ACTIVE, False, None, 0, True, "its endpoint does not name it", id="active-unnamed"),
        pytest.param(PREVIOUS, False, None, 0, False, "overlap is over .* safe to destroy; .*purge --older", id="over"),
        pytest.param(RETIRED, False, None, 0, False, "signs no more .* safe to destroy; .*purge --older", id="retired"),
        pytest.param(DESTROYED, False, None, 0, False, "what it signed stays on record$", id="destroyed"),
    ],
)
def test_a_version_is_needed_while_it_may_sign(
    state: VersionState, signs: bool, until: datetime | None, claims: int, needed: bool, reason: str
) -> None:
    found = need(state, signs=signs, signs_until=until, claims_in_flight=claims)
    assert needed is found.needed
    assert re.search(reason, found.reason)


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize("state", VersionState)
def test_a_version_in_a_stale_row_is_needed(state: VersionState) -> None:
    found = need(state, signs=False, signs_until=None, claims_in_flight=0, named_by_old_row=True)
    assert found.needed
    assert "restore check" in found.reason


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize("provider", Provider)
def test_the_ref_of_an_endpoints_secret_names_the_endpoint(provider: Provider) -> None:
    assert (ref(7, provider), ENDPOINT) == signing_ref(str(ref(7, provider)))


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "shape"),
        (f"db:acme:{NAME}:07", "version"),
        (f"db:acme:{NAME}", "shape"),
        (f"DB:acme:{NAME}:7", "provider"),
        (f"db:_system:{NAME}:7", "tenant"),
        ("db:_system:integrity:1", "tenant"),
        (f"db:acme:{ENDPOINT}:7", "name"),
        (f"db:acme:endpoint-headers-{ENDPOINT}:7", "name"),
        (f"db:acme:webhook-endpoint-{NAME}:7", "name"),
        ("db:acme:webhook-endpoint-:7", "name"),
        (f"db:acme:{NAME.upper()}:7", "name"),
        ("db:acme:" + "x" * 512 + ":7", "length"),
    ],
)
def test_a_ref_of_no_endpoint_is_refused(text: str, part: str) -> None:
    with pytest.raises(Malformed, match=rf"^secret ref: its {part} must be ") as caught:
        signing_ref(text)
    assert "signed_by" == caught.value.field
    assert ENDPOINT not in str(caught.value)


@pytest.mark.req("SEC-23")
async def test_an_unknown_version_is_not_found(pool: Pool) -> None:
    added = await (await begin(pool)).endpoint()
    stored = SecretRef.parse(added.pointer.secret_ref or "")
    parts: dict[str, Any] = {"provider": stored.provider, "tenant": stored.tenant, "name": stored.name, "version": 1}
    await require_known(pool, stored)
    for changed in ({"version": 2}, {"name": NAME}, {"provider": Provider.AWS}, {"tenant": OTHER_TENANT}):
        with pytest.raises(NotFound) as caught:
            await require_known(pool, SecretRef(**parts | changed))
        assert "signed_by" == caught.value.field
    await pool.execute("UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL")
    await require_known(pool, stored)


async def test_only_the_previous_secret_has_an_end_of_signing(pool: Pool) -> None:
    installation = await begin(pool)
    endpoint = (await installation.endpoint()).pointer
    first = SecretRef.parse(endpoint.secret_ref or "")
    second = SecretRef(provider=first.provider, tenant=TENANT, name=first.name, version=2)
    await pool.execute("UPDATE hookseal.secret_records SET state = 'previous' WHERE tenant_id = 'acme'")
    await pool.execute(
        "INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed)"
        " SELECT tenant_id, name, 2, provider, purpose, scheme, sealed FROM hookseal.secret_records"
        " WHERE tenant_id = 'acme'"
    )
    overlap = (
        "UPDATE hookseal.endpoints SET secret_ref = $1, previous_secret_ref = $2,"
        " previous_secret_expires_at = now() + make_interval(secs => $3) RETURNING previous_secret_expires_at"
    )
    until = await pool.fetchval(overlap, str(second), str(first), 60.0)

    async def read() -> list[tuple[bool, datetime | None]]:
        found = await version_report.of_endpoint(pool, TENANT, endpoint.endpoint_id)
        return [(one["signs"], one["signs_until"]) for one in found]

    assert [(True, until), (True, None)] == await read()
    await pool.execute(overlap, str(second), str(first), -1.0)
    assert [(False, None), (True, None)] == await read()
    await pool.execute(overlap, str(first), str(first), 60.0)
    assert [(True, None), (False, None)] == await read()
    await pool.execute("DELETE FROM hookseal.endpoints")
    assert [(False, None), (False, None)] == await read()


# Properties of the store `dev` that other stores do not have.


async def test_times_come_from_the_stores_clock() -> None:
    clock = FakeClock()
    store = DevStore(clock)
    start = clock.now()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.SENTINEL)
    await clock.sleep(5)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=Purpose.SENTINEL)

    first, second = await store.versions(TENANT, NAME)
    assert (start, start + timedelta(seconds=5)) == (first.created_at, first.changed_at)
    assert (start + timedelta(seconds=5),) * 2 == (second.created_at, second.changed_at)


async def test_two_dev_stores_share_nothing() -> None:
    ref = await DevStore().put(TENANT, NAME, SECRET, purpose=Purpose.SENTINEL)

    with pytest.raises(SecretNotFound):
        await DevStore().get(ref, purpose=Purpose.SENTINEL)
