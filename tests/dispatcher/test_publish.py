"""Publishing, from Python and from SQL."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import pytest

from hookseal.dispatcher.store.publish import Event, Published, publish_json, publish_raw
from hookseal.errors import Conflict, Malformed, Refused
from hookseal.ground.ids import EventId, TenantId, event_id
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.postgres.pool import Connection
from hookseal.postgres.schema import revision
from tests.doubles.stored import begin

Pool = asyncpg.Pool
TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"


def event(event_type: str = "invoice.paid", **changes: object) -> Event:
    """Return an event of acme."""
    given: dict[str, object] = {"tenant_id": TenantId("acme"), "event_type": event_type, **changes}
    return Event(**given)  # type: ignore[arg-type]


async def endpoint(pool: "Pool[asyncpg.Record]", tenant: str, *types: str) -> str:
    """Insert an endpoint as an older system would, and return its id."""
    made: str = await pool.fetchval(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ($1, hookseal.uuid7(), 'https://r.example/' || hookseal.uuid7(), $2, 'old') RETURNING id::text",
        tenant,
        list(types),
    )
    return made


async def stored_body(pool: "Pool[asyncpg.Record]", event_id_: str) -> bytes:
    """Return the body of an event."""
    body: bytes = await pool.fetchval("SELECT body FROM hookseal.events WHERE id = $1", event_id_)
    return body


@pytest.mark.req("DEL-01")
async def test_each_subscriber_gets_one_delivery(pool: "Pool[asyncpg.Record]") -> None:
    """Each endpoint of the tenant that subscribes to the type gets one delivery, and no other endpoint does.

    Only the delivery for a disabled endpoint waits.
    """
    exact = await endpoint(pool, "acme", "invoice.paid")
    family = await endpoint(pool, "acme", "user.created", "invoice.*")
    everything = await endpoint(pool, "acme", "*")
    for others in ("invoice", "invoice.paid.late", "invoice.paid.*", "invoicex.*", "user.*"):
        await endpoint(pool, "acme", others)
    await endpoint(pool, "globex", "*")
    disabled = await endpoint(pool, "acme", "*")
    await pool.execute("UPDATE hookseal.endpoints SET enabled = false WHERE id = $1::text::uuid", disabled)

    published = await publish_json(pool, event(), "{}")

    assert {exact, family, everything, disabled} == {ring.endpoint_id for ring in published.deliveries}
    rows = await pool.fetch("SELECT endpoint_id::text, waiting_for FROM hookseal.deliveries")
    assert {disabled: "endpoint_disabled"} == {row[0]: row[1] for row in rows if row["waiting_for"] is not None}
    assert {"acme"} == {ring.tenant_id for ring in published.deliveries}


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_tenants_and_event_types_are_case_sensitive(pool: "Pool[asyncpg.Record]") -> None:
    """Tenants and event types may have capital letters, and two that differ only in case are different."""
    capital = await endpoint(pool, "Org_2aB", "Invoice.*", "user.sign-in")
    await endpoint(pool, "org_2ab", "*")

    async def receivers(event_type: str) -> list[str]:
        published = await publish_json(pool, event(event_type, tenant_id=TenantId("Org_2aB")), "{}")
        return [ring.endpoint_id for ring in published.deliveries]

    assert [[capital], [capital]] == [await receivers("Invoice.payment-failed"), await receivers("user.sign-in")]
    assert [[], []] == [await receivers("invoice.paid"), await receivers("User.sign-in")]


@pytest.mark.req("DEL-01")
async def test_an_event_without_subscribers_is_stored(pool: "Pool[asyncpg.Record]") -> None:
    """An event without subscribers is stored, with an id of its own."""
    published = await publish_json(pool, event(), "{}")

    assert ((), False) == (published.deliveries, published.duplicate)
    assert published.event_id == event_id(published.event_id)
    assert await stored_body(pool, published.event_id)


@pytest.mark.req("DEL-01")
async def test_the_body_is_frozen(pool: "Pool[asyncpg.Record]") -> None:
    """The body contains type, time and data; the data keeps the producer's order, spacing and spelling."""
    data = '{"z": 1,  "a": "Zo\\u00eb \U0001f680", "n": 1.10}'
    published = await publish_json(pool, event(), data)
    body = (await stored_body(pool, published.event_id)).decode()

    assert body.endswith(f',"data":{data}}}')
    assert {"type", "timestamp", "data"} == set(json.loads(body))
    moment = json.loads(body)["timestamp"]
    assert moment.endswith("Z")
    assert 3 == len(moment.removesuffix("Z").rpartition(".")[2])
    assert await pool.fetchval("SELECT occurred_at FROM hookseal.events") == datetime.fromisoformat(moment)


@pytest.mark.req("DEL-01")
async def test_a_raw_body_is_stored_byte_for_byte(pool: "Pool[asyncpg.Record]") -> None:
    """A raw body is stored byte for byte."""
    published = await publish_raw(pool, event(), b"\xff\xfe\x00binary")

    assert b"\xff\xfe\x00binary" == await stored_body(pool, published.event_id)


@pytest.mark.req("DEL-01")
@pytest.mark.parametrize("raw", [False, True])
async def test_a_repeat_returns_the_first_result(pool: "Pool[asyncpg.Record]", raw: bool) -> None:
    """Publishing the same event id, type and data again returns the first result and creates nothing."""
    await endpoint(pool, "acme", "*")
    given = event(event_id=EventId("e1"))

    async def publish() -> object:
        return await (publish_raw(pool, given, b"{}") if raw else publish_json(pool, given, "{}"))

    first = await publish()
    await endpoint(pool, "acme", "*")
    second = await publish()

    assert (False, True) == (first.duplicate, second.duplicate)  # type: ignore[attr-defined]
    assert first.deliveries == second.deliveries  # type: ignore[attr-defined]
    assert 1 == await pool.fetchval("SELECT count(*) FROM hookseal.deliveries")


@pytest.mark.req("DEL-01")
@pytest.mark.parametrize("change", ["type", "data", "spacing", "raw"])
async def test_a_used_event_id_is_a_conflict(pool: "Pool[asyncpg.Record]", change: str) -> None:
    """The same event id with another type, other data or another kind of body is a conflict."""
    await publish_json(pool, event(event_id=EventId("e1")), '{"a":1}')

    publishing: Callable[[], Awaitable[Published]] = {
        "type": lambda: publish_json(pool, event("other", event_id=EventId("e1")), '{"a":1}'),
        "data": lambda: publish_json(pool, event(event_id=EventId("e1")), '{"a":2}'),
        "spacing": lambda: publish_json(pool, event(event_id=EventId("e1")), '{"a": 1}'),
        "raw": lambda: publish_raw(pool, event(event_id=EventId("e1")), b'{"a":1}'),
    }[change]
    with pytest.raises(Conflict):
        await publishing()


@pytest.mark.req("SEC-08")
@pytest.mark.req("DEL-01")
async def test_event_ids_belong_to_their_tenant(pool: "Pool[asyncpg.Record]") -> None:
    """Two tenants may use the same event id for different events."""
    await publish_json(pool, event(event_id=EventId("e1")), "1")
    other = await publish_json(pool, event(tenant_id=TenantId("globex"), event_id=EventId("e1")), "2")

    assert not other.duplicate


@pytest.mark.req("DEL-14", part="publish-limits")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tenant_id": "_system"}, "tenant"),
        ({"tenant_id": "-a"}, "tenant"),
        ({"tenant_id": "a\n"}, "tenant"),
        ({"event_type": "a b"}, "event_type"),
        ({"event_type": "a.*"}, "event_type"),
        ({"event_type": "x" * 129}, "event_type"),
        ({"event_id": "a.b"}, "event_id"),
        ({"event_id": ""}, "event_id"),
        ({"correlation_id": "a\r\nX: y"}, "correlation_id"),
        ({"correlation_id": "x" * 129}, "correlation_id"),
        ({"traceparent": "nonsense"}, "traceparent"),
        ({"traceparent": f"{TRACE}\r\nX: y"}, "traceparent"),
        ({"traceparent": f"{TRACE}\n"}, "traceparent"),
        ({"traceparent": f"x{TRACE}"}, "traceparent"),
    ],
)
async def test_the_database_refuses_a_malformed_field(
    pool: "Pool[asyncpg.Record]", changes: dict[str, str], field: str
) -> None:
    """The database refuses a malformed field, raw or not, names it, and stores nothing."""
    with pytest.raises(Malformed) as wrapped:
        await publish_json(pool, event(**changes), "{}")
    with pytest.raises(Malformed) as raw:
        await publish_raw(pool, event(**changes), b"{}")

    assert (field, field) == (wrapped.value.field, raw.value.field)
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_size_of_a_body_is_limited(pool: "Pool[asyncpg.Record]") -> None:
    """A body of 262,144 bytes as sent is accepted and one byte more is refused, raw or not."""
    await publish_raw(pool, event(), b"x" * MAX_BODY_BYTES)
    with pytest.raises(Malformed) as raw:
        await publish_raw(pool, event(), b"x" * (MAX_BODY_BYTES + 1))
    with pytest.raises(Malformed) as wrapped:
        await publish_json(pool, event(), '"' + "x" * MAX_BODY_BYTES + '"')

    assert ("body", "body") == (raw.value.field, wrapped.value.field)


@pytest.mark.parametrize("data", ["", "{", "{} {}", "\x00", '{"a": 1,}', "[" * 200_000, '"\udc80"'])
async def test_other_data_than_json_is_malformed(pool: "Pool[asyncpg.Record]", data: str) -> None:
    """Data that is not JSON is malformed."""
    with pytest.raises(Malformed) as caught:
        await publish_json(pool, event(), data)

    assert "data" == caught.value.field


@pytest.mark.req("DEL-14", part="publish-limits")
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
async def test_nan_and_infinity_are_refused(pool: "Pool[asyncpg.Record]", value: str) -> None:
    """From SQL, PostgreSQL's type refuses these numbers before any code of hookseal runs."""
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await pool.fetch("SELECT * FROM hookseal.publish('acme', 'a', $1::json)", f'{{"a": {value}}}')


@asynccontextmanager
async def login(pool: "Pool[asyncpg.Record]", database_url: str) -> AsyncIterator[tuple[str, Connection]]:
    """Yield a role that may only log in, and a connection of its own."""
    role = "hookseal_test_" + (await pool.fetchval("SELECT current_database()"))[-24:]
    await pool.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        connection = await asyncpg.connect(f"postgresql://{role}:p@{database_url.partition('@')[2]}")
        try:
            yield role, connection
        finally:
            await connection.close()
    finally:
        await pool.execute(f"REVOKE hookseal_producer FROM {role}; DROP ROLE {role}")


@pytest.mark.req("DEL-01")
async def test_a_role_publishes_only_for_its_granted_tenants(pool: "Pool[asyncpg.Record]", database_url: str) -> None:
    """A role may publish only for the tenants that were granted to it, or for all with `*`, raw or not."""
    async with login(pool, database_url) as (role, connection):

        async def is_refused(tenant: str = "acme") -> None:
            given = event(tenant_id=TenantId(tenant))
            with pytest.raises(Refused):
                await publish_json(connection, given, "{}")
            with pytest.raises(Refused):
                await publish_raw(connection, given, b"{}")

        await is_refused()
        await pool.execute(f"GRANT hookseal_producer TO {role}")
        await is_refused()
        await pool.execute(
            "INSERT INTO hookseal.producers (role_name, tenant_id, role)"
            " SELECT rolname, 'acme', oid FROM pg_roles WHERE rolname = $1",
            role,
        )
        await publish_json(connection, event(), "{}")
        assert revision.EXPECTED == await revision.current(connection), (
            "a producer cannot read the revision, which the command compares first"
        )
        await is_refused("globex")
        await pool.execute("UPDATE hookseal.producers SET tenant_id = '*'")
        await publish_raw(connection, event(tenant_id=TenantId("globex")), b"x")

    assert 2 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


@pytest.mark.req("DEL-01")
async def test_a_producer_may_only_publish(pool: "Pool[asyncpg.Record]", database_url: str) -> None:
    """A producer cannot read a table or call the internal functions behind those that publish."""
    async with login(pool, database_url) as (role, connection):
        await pool.execute(f"GRANT hookseal_producer TO {role}")
        for table in ("events", "deliveries", "endpoints", "secret_records", "producers", "attempts", "audience"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM hookseal.{table}")  # noqa: S608 -- names of ours
        inner = ("admit_tenant('a')", "admit_event(NULL, NULL)", "read_events('{}')", "store_events('a', '{}', 1)")
        for within in (*inner, "store_event('a', NULL::hookseal.given_event)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for function"):
                await connection.fetch(f"SELECT hookseal.{within}")


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_callers_session_settings_change_no_rule(pool: "Pool[asyncpg.Record]") -> None:
    """A session that interprets backslashes differently has the same rules."""
    async with pool.acquire() as connection:
        await connection.execute("SET standard_conforming_strings = off")
        with pytest.raises(Malformed):
            await publish_json(connection, event('a"b,c'), "{}")
        with pytest.raises(Malformed):
            await publish_json(connection, event("a", correlation_id="x y"), "{}")
        await publish_json(connection, event("a.b", correlation_id="x-y"), "{}")


@pytest.mark.req("DEL-01")
async def test_an_event_joins_the_callers_transaction(pool: "Pool[asyncpg.Record]") -> None:
    """An event that is published in a transaction is rolled back with it."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await publish_json(connection, event(), "{}")
        await transaction.rollback()

    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


async def test_the_database_creates_uuid7_ids(pool: "Pool[asyncpg.Record]") -> None:
    """The database creates distinct UUIDv7 ids with the current time."""
    rows = await pool.fetch("SELECT hookseal.uuid7()::text AS id, now() AS at FROM generate_series(1, 1000)")

    assert 1000 == len({row["id"] for row in rows})
    for row in rows:
        event_id(row["id"])
        assert "7" == row["id"][14]
        assert row["id"][19] in "89ab"
        assert abs(int(row["id"].replace("-", "")[:12], 16) / 1000 - row["at"].timestamp()) < 5


async def test_ids_are_in_the_order_in_which_they_were_made(pool: "Pool[asyncpg.Record]") -> None:
    """Ids of the same millisecond are in their order, too."""
    async with pool.acquire() as connection:
        made = [await connection.fetchval("SELECT hookseal.uuid7()::text") for _ in range(100)]

    assert sorted(made) == made


async def test_an_endpoint_added_with_its_secret_gets_deliveries(pool: "Pool[asyncpg.Record]") -> None:
    """An endpoint that was added with its secret gets deliveries."""
    installation = await begin(pool)
    added = await installation.endpoint()

    assert [added.pointer.endpoint_id] == [ring.endpoint_id for ring in await installation.deliveries()]
