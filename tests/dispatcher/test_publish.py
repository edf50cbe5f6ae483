"""Publishing one event or many: what is stored, and what is refused."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import product
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.store.publish import (
    MOST_BYTES,
    MOST_EVENTS,
    NewEvent,
    PublishResult,
    batch,
    publish,
    publish_json,
    publish_many,
    publish_raw,
)
from hookseal.errors import Conflict, HooksealError, Malformed, Refused
from hookseal.ground.ids import EventId, TenantId, event_id
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.postgres.pool import Connection, Pool
from hookseal.postgres.schema import revision
from tests import rows
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"
ACME = TenantId("acme")
SQL = "SELECT * FROM hookseal.publish_many($1, $2::text[]::json[])"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LIMITS: list[tuple[dict[str, Any], str]] = [
    ({"event_type": "a b"}, "event_type"),
    ({"event_type": "a.*"}, "event_type"),
    ({"event_type": "x" * 129}, "event_type"),
    ({"event_type": "a\n"}, "event_type"),
    ({"event_type": None}, "event_type"),
    ({"event_id": "a/b"}, "event_id"),
    ({"event_id": "."}, "event_id"),
    ({"event_id": ".."}, "event_id"),
    ({"event_id": ""}, "event_id"),
    ({"event_id": "x" * 257}, "event_id"),
    ({"event_id": "\\u0000"}, "event_id"),
    ({"correlation_id": "a\r\nX: y"}, "correlation_id"),
    ({"correlation_id": "x" * 129}, "correlation_id"),
    ({"traceparent": "nonsense"}, "traceparent"),
]
NO_EVENTS: list[tuple[str | None, str]] = [
    ("5", "events"),
    ("[]", "events"),
    ("{}", "events"),
    (None, "events"),
    ('{"event_type": "a", "data": 1, "eventid": "e"}', "events"),
    ('{"event_type": "a", "data": 1, "data": 2}', "events"),
    ('{"event_type": "a", "data": 1, "event_id": 5}', "events"),
    ('{"event_type": "a", "body": {}}', "events"),
    ('{"event_\\u0074ype": "a", "data": 1}', "events"),
    ('{"event_type": "a"}', "data"),
    ('{"event_type": "a", "body": null}', "data"),
    ('{"event_type": "a", "data": 1, "body": ""}', "data"),
    ('{"event_type": "a", "body": "AAA"}', "body"),
    ('{"event_type": "a", "body": "A==="}', "body"),
    ('{"event_type": "a", "body": "AA=A"}', "body"),
    ('{"event_type": "a", "body": "AA\\nAA"}', "body"),
]
_MORE_LEVELS = 15  # a level more of each index, in each look-up
MALFORMED = [
    ({"tenant_id": "_system"}, "tenant"),
    ({"tenant_id": "-a"}, "tenant"),
    ({"tenant_id": "a\n"}, "tenant"),
    ({"event_type": "a b"}, "event_type"),
    ({"event_type": "a.*"}, "event_type"),
    ({"event_type": "x" * 129}, "event_type"),
    ({"event_id": "a/b"}, "event_id"),
    ({"event_id": ""}, "event_id"),
    ({"correlation_id": "a\r\nX: y"}, "correlation_id"),
    ({"correlation_id": "x" * 129}, "correlation_id"),
    ({"traceparent": "nonsense"}, "traceparent"),
    ({"traceparent": f"{TRACE}\r\nX: y"}, "traceparent"),
    ({"traceparent": f"{TRACE}\n"}, "traceparent"),
    ({"traceparent": f"x{TRACE}"}, "traceparent"),
]


def event(event_type: str = "invoice.paid", **changes: object) -> NewEvent:
    given: dict[str, object] = {"tenant_id": TenantId("acme"), "event_type": event_type, **changes}
    return NewEvent(**given)  # type: ignore[arg-type]


async def endpoint(pool: Pool, tenant: str, *types: str) -> str:
    """Insert an endpoint as an older system would, and return its id."""
    made: str = await pool.fetchval(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ($1, hookseal.uuid7(), 'https://r.example/' || hookseal.uuid7(), $2, 'old') RETURNING id::text",
        tenant,
        list(types),
    )
    return made


async def stored_body(pool: Pool, event_id_: str) -> bytes:
    body: bytes = await pool.fetchval("SELECT body FROM hookseal.events WHERE id = $1", event_id_)
    return body


async def malformed_field(publishing: Awaitable[object]) -> str | None:
    """Return the field for which this is refused as malformed; None if it is published."""
    try:
        await publishing
    except Malformed as error:
        return error.field
    return None


@pytest.mark.req("DEL-01")
async def test_each_subscriber_gets_one_delivery(pool: Pool) -> None:
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
    await rows.change(pool, "endpoints", disabled, enabled=False)

    published = await publish_json(pool, event(), "{}")

    assert {exact, family, everything, disabled} == {ring.endpoint_id for ring in published.deliveries}
    found = await pool.fetch("SELECT endpoint_id::text, waiting_for FROM hookseal.deliveries")
    assert {disabled: "endpoint_disabled"} == {row[0]: row[1] for row in found if row["waiting_for"] is not None}
    assert {"acme"} == {ring.tenant_id for ring in published.deliveries}


@pytest.mark.req("DEL-01")
async def test_a_publish_follows_each_change_of_an_endpoint(pool: Pool) -> None:
    """What an endpoint subscribes to counts from the moment of its change, also by SQL, and ends with the endpoint."""
    one = await endpoint(pool, "acme", "invoice.paid", "invoice.paid", "invoice.*", "*", "x" * 5_000)

    async def receivers(event_type: str, tenant: str = "acme") -> Sequence[str]:
        given = event(event_type, tenant_id=TenantId(tenant))
        alone = await publish_json(pool, given, "{}")
        [in_batch] = await publish_many(pool, given.tenant_id, batch([(given, "{}")]))
        found = [[ring.endpoint_id for ring in each.deliveries] for each in (alone, in_batch)]
        assert found[0] == found[1]
        return found[0]

    async def change(assignment: str) -> None:
        await pool.execute(f"UPDATE hookseal.endpoints SET {assignment}")  # noqa: S608 -- ours

    assert [[one]] * 2 == [await receivers("invoice.paid"), await receivers("user.created")]
    await change("event_types = ARRAY['user.*', NULL]")
    assert [[], [one]] == [await receivers("invoice.paid"), await receivers("user.created")]
    await change("tenant_id = 'globex', id = md5('other')::uuid")
    other = "795f3202-b17c-b6bc-3d4b-771d8c6c9eaf"
    assert [[], [other]] == [await receivers("user.created"), await receivers("user.created", "globex")]
    await pool.execute("DELETE FROM hookseal.endpoints")
    assert 0 == await count(pool, "subscriptions")
    await endpoint(pool, "acme", "*")
    await pool.execute("TRUNCATE hookseal.endpoints")
    assert 0 == await count(pool, "subscriptions")


@pytest.mark.req("DEL-01")
async def test_a_publish_reads_no_endpoint_that_does_not_subscribe(pool: Pool) -> None:
    """The blocks that it reads do not grow with endpoints of its tenant for other types, nor with those of others."""
    await endpoint(pool, "acme", "invoice.*")
    calls = (
        "SELECT * FROM hookseal.publish('acme', 'invoice.paid', '1'::json)",
        'SELECT * FROM hookseal.publish_many(\'acme\', ARRAY[\'{"event_type": "invoice.paid", "data": 1}\']::json[])',
    )

    async def blocks() -> list[int]:
        await pool.execute("ANALYZE hookseal.endpoints, hookseal.subscriptions")
        return [await _blocks(pool, call) for call in calls]

    before = await blocks()
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
        " SELECT CASE WHEN n % 3 = 0 THEN 'acme' ELSE 'other' || n % 100 END, hookseal.uuid7(), 'https://a.example/'"
        " || n, CASE WHEN n % 3 > 0 THEN '{*,invoice.*}' WHEN n % 2 = 0 THEN '{user.*}' ELSE ARRAY['user.' || n] END"
        " FROM generate_series(1, 9000) AS n"
    )
    after = await blocks()

    assert all(now <= then + _MORE_LEVELS for then, now in zip(before, after, strict=True)), (before, after)


@pytest.mark.req("DEL-01")
async def test_a_delivery_costs_as_much_however_many_there_are(pool: Pool) -> None:
    """With a plan that the session made while there was one endpoint, and before any ANALYZE; alone and in a batch."""
    await endpoint(pool, "acme", "*")
    calls = (
        "SELECT FROM hookseal.publish_raw('acme', 'invoice.paid', '{}')",
        'SELECT FROM hookseal.publish_many(\'acme\', ARRAY[\'{"event_type": "invoice.paid", "data": 1}\']::json[])',
    )
    costs = []
    async with pool.acquire() as connection:
        for call in calls * 7:
            await connection.fetch(call)
        for first, last in ((1, 200), (201, 2_000)):
            await connection.execute(
                "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
                " SELECT 'acme', hookseal.uuid7(), 'https://a.example/' || n, '{*}'"
                " FROM generate_series($1::int, $2::int) AS n",
                first,
                last,
            )
            costs.append([await _blocks_of_plan(connection, call) / last for call in calls])
    few, many = costs

    assert all(now <= 1.5 * then for then, now in zip(few, many, strict=True)), costs


async def _blocks(pool: Pool, call: str) -> int:
    """Return how many blocks a call reads in a session that has its plans."""
    async with pool.acquire() as connection:
        for _ in range(7):
            await connection.fetch(call)
        return await _blocks_of_plan(connection, call)


async def _blocks_of_plan(connection: Connection, call: str) -> int:
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}")
    plan = json.loads(text)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_tenants_and_event_types_are_case_sensitive(pool: Pool) -> None:
    capital = await endpoint(pool, "Org_2aB", "Invoice.*", "user.sign-in")
    await endpoint(pool, "org_2ab", "*")

    async def receivers(event_type: str) -> list[str]:
        published = await publish_json(pool, event(event_type, tenant_id=TenantId("Org_2aB")), "{}")
        return [ring.endpoint_id for ring in published.deliveries]

    assert [[capital], [capital]] == [await receivers("Invoice.payment-failed"), await receivers("user.sign-in")]
    assert [[], []] == [await receivers("invoice.paid"), await receivers("User.sign-in")]


@pytest.mark.req("DEL-01")
async def test_an_event_without_subscribers_is_stored(pool: Pool) -> None:
    published = await publish_json(pool, event(), "{}")

    assert ((), False) == (published.deliveries, published.duplicate)
    assert published.event_id == event_id(published.event_id)
    assert await stored_body(pool, published.event_id)


@pytest.mark.req("DEL-01")
async def test_the_body_is_frozen(pool: Pool) -> None:
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
async def test_a_raw_body_is_stored_byte_for_byte(pool: Pool) -> None:
    published = await publish_raw(pool, event(), b"\xff\xfe\x00binary")

    assert b"\xff\xfe\x00binary" == await stored_body(pool, published.event_id)


@pytest.mark.req("DEL-01")
@pytest.mark.parametrize("raw", [False, True])
async def test_a_repeat_returns_the_first_result(pool: Pool, raw: bool) -> None:
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
async def test_a_used_event_id_is_a_conflict(pool: Pool, change: str) -> None:
    await publish_json(pool, event(event_id=EventId("e1")), '{"a":1}')

    publishing: Callable[[], Awaitable[PublishResult]] = {
        "type": lambda: publish_json(pool, event("other", event_id=EventId("e1")), '{"a":1}'),
        "data": lambda: publish_json(pool, event(event_id=EventId("e1")), '{"a":2}'),
        "spacing": lambda: publish_json(pool, event(event_id=EventId("e1")), '{"a": 1}'),
        "raw": lambda: publish_raw(pool, event(event_id=EventId("e1")), b'{"a":1}'),
    }[change]
    with pytest.raises(Conflict):
        await publishing()


@pytest.mark.req("SEC-08", "DEL-01")
async def test_event_ids_belong_to_their_tenant(pool: Pool) -> None:
    await publish_json(pool, event(event_id=EventId("e1")), "1")
    other = await publish_json(pool, event(tenant_id=TenantId("globex"), event_id=EventId("e1")), "2")

    assert not other.duplicate


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_database_refuses_a_malformed_field(pool: Pool) -> None:
    for changes, field in MALFORMED:
        assert field == await malformed_field(publish_json(pool, event(**changes), "{}")), changes
        assert field == await malformed_field(publish_raw(pool, event(**changes), b"{}")), changes
        assert field == await malformed_field(publish(pool, event(**changes), b"{}", dated=True)), changes
    for content in ("NULL, NULL", "'1', '1'"):  # neither data nor a body, or both
        with pytest.raises(asyncpg.PostgresError) as caught:
            await pool.fetch(f"SELECT hookseal.publish_event('acme', 'a.b', {content})")
        assert ("HS422", "data") == (caught.value.sqlstate, caught.value.column_name)
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_size_of_a_body_is_limited(pool: Pool) -> None:
    """A body of 262,144 bytes as sent is accepted and one byte more is refused, raw or not."""
    await publish_raw(pool, event(), b"x" * MAX_BODY_BYTES)
    with pytest.raises(Malformed) as raw:
        await publish_raw(pool, event(), b"x" * (MAX_BODY_BYTES + 1))
    with pytest.raises(Malformed) as wrapped:
        await publish_json(pool, event(), '"' + "x" * MAX_BODY_BYTES + '"')

    assert ("body", "body") == (raw.value.field, wrapped.value.field)


async def test_other_data_than_json_is_malformed(pool: Pool) -> None:
    for data in ("", "{", "{} {}", "\x00", '{"a": 1,}', "[" * 200_000, '"\udc80"'):
        assert "data" == await malformed_field(publish_json(pool, event(), data)), data[:20]


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_nan_and_infinity_are_refused(pool: Pool) -> None:
    """From SQL, PostgreSQL's type refuses these numbers before any code of hookseal runs."""
    for value in ("NaN", "Infinity", "-Infinity"):
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await pool.fetch("SELECT * FROM hookseal.publish('acme', 'a', $1::json)", f'{{"a": {value}}}')


@asynccontextmanager
async def login(pool: Pool, database_url: str) -> AsyncIterator[tuple[str, Connection]]:
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
async def test_a_role_publishes_only_for_its_granted_tenants(pool: Pool, database_url: str) -> None:
    async with login(pool, database_url) as (role, connection):

        async def is_refused(tenant: str = "acme") -> None:
            given = event(tenant_id=TenantId(tenant))
            with pytest.raises(Refused):
                await publish_json(connection, given, "{}")
            with pytest.raises(Refused):
                await publish_raw(connection, given, b"{}")
            with pytest.raises(Refused):
                await publish(connection, given, b"{}", dated=True)

        await is_refused()
        await pool.execute(f"GRANT hookseal_producer TO {role}")
        await is_refused()
        await rows.grant(pool, role)
        await publish_json(connection, event(), "{}")
        assert revision.EXPECTED == await revision.current(connection), (
            "a producer cannot read the revision, which the command compares first"
        )
        await is_refused("globex")
        await rows.change(pool, "producers", tenant_id="*")
        await publish_raw(connection, event(tenant_id=TenantId("globex")), b"x")

    assert 2 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


@pytest.mark.req("DEL-01")
async def test_a_producer_may_only_publish(pool: Pool, database_url: str) -> None:
    """A producer cannot read a table or call the internal functions behind those that publish."""
    async with login(pool, database_url) as (role, connection):
        await pool.execute(f"GRANT hookseal_producer TO {role}")
        for table in ("events", "deliveries", "endpoints", "secret_records", "producers", "attempts", "audience"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM hookseal.{table}")  # noqa: S608 -- names of ours
        inner = ("admit_tenant('a')", "admit_event(NULL, NULL)", "read_events('{}')", "store_events('a', '{}', 1)")
        for within in (*inner, "store_event('a', NULL::hookseal.given_event)", "time_of_event('a', 'e')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for function"):
                await connection.fetch(f"SELECT hookseal.{within}")


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_callers_session_settings_change_no_rule(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("SET standard_conforming_strings = off")
        with pytest.raises(Malformed):
            await publish_json(connection, event('a"b,c'), "{}")
        with pytest.raises(Malformed):
            await publish_json(connection, event("a", correlation_id="x y"), "{}")
        await publish_json(connection, event("a.b", correlation_id="x-y"), "{}")


@pytest.mark.req("DEL-01")
async def test_an_event_joins_the_callers_transaction(pool: Pool) -> None:
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await publish_json(connection, event(), "{}")
        await transaction.rollback()

    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


async def test_the_database_creates_uuid7_ids(pool: Pool) -> None:
    found = await pool.fetch("SELECT hookseal.uuid7()::text AS id, now() AS at FROM generate_series(1, 1000)")

    assert 1000 == len({row["id"] for row in found})
    for row in found:
        event_id(row["id"])
        assert "7" == row["id"][14]
        assert row["id"][19] in "89ab"
        assert abs(int(row["id"].replace("-", "")[:12], 16) / 1000 - row["at"].timestamp()) < 5


async def test_ids_are_in_the_order_in_which_they_were_made(pool: Pool) -> None:
    async with pool.acquire() as connection:
        made = [await connection.fetchval("SELECT hookseal.uuid7()::text") for _ in range(100)]

    assert sorted(made) == made


async def test_an_endpoint_added_with_its_secret_gets_deliveries(installation: Installation) -> None:
    added = await installation.endpoint()

    assert [added.pointer.endpoint_id] == [ring.endpoint_id for ring in await installation.deliveries()]


async def many(pool: Pool, *events: tuple[NewEvent, str | bytes]) -> list[PublishResult]:
    return await publish_many(pool, ACME, batch(events))


async def by_sql(pool: Pool, *events: str, tenant: str = "acme") -> list[asyncpg.Record]:
    """Publish from SQL; each event is JSON text."""
    return await pool.fetch(SQL, tenant, events)


async def count(pool: Pool, table: str = "events") -> int:
    """Return the number of rows."""
    found: int = await pool.fetchval(f"SELECT count(*) FROM hookseal.{table}")  # noqa: S608 -- a name of ours
    return found


def numbered(first: int, last: int) -> list[tuple[NewEvent, str | bytes]]:
    """Return events with ids and data that contain their numbers."""
    return [(event(event_id=EventId(f"e{number}")), str(number)) for number in range(first, last + 1)]


def as_json(**fields: object) -> str:
    return json.dumps({"event_type": "a.b", "data": 1} | fields)


@pytest.mark.req("DEL-01")
async def test_each_event_creates_a_delivery_for_each_subscriber(pool: Pool) -> None:
    """Each event creates a delivery for each subscribed endpoint of the tenant; results are in the given order."""
    exact = await endpoint(pool, "acme", "invoice.paid")
    family = await endpoint(pool, "acme", "user.created", "invoice.*")
    everything = await endpoint(pool, "acme", "*")
    await endpoint(pool, "acme", "invoice.paid.*", "invoice", "invoicex.*")
    await endpoint(pool, "globex", "*")
    types = {
        "invoice.paid": {exact, family, everything},
        "invoice.paid.late": {family, everything},
        "user.created": {family, everything},
        "user": {everything},
    }
    published = await many(pool, *[(event(each), "1") for each in types])

    reached = [{ring.endpoint_id for ring in one.deliveries} for one in published]
    # invoice.paid.late reaches the fourth endpoint, too, which subscribes to invoice.paid.*.
    fourth = await pool.fetchval("SELECT id::text FROM hookseal.endpoints WHERE 'invoicex.*' = ANY (event_types)")
    types["invoice.paid.late"].add(fourth)
    assert list(types.values()) == reached
    assert list(types) == [
        await pool.fetchval("SELECT event_type FROM hookseal.events WHERE id = $1", one.event_id) for one in published
    ]
    assert 9 == await count(pool, "deliveries")
    assert {"acme"} == {ring.tenant_id for one in published for ring in one.due}


@pytest.mark.req("DEL-22")
async def test_deliveries_for_a_held_endpoint_are_not_due(pool: Pool) -> None:
    due, disabled, held = [await endpoint(pool, "acme", "*") for _ in range(3)]
    await rows.change(pool, "endpoints", disabled, enabled=False)
    await rows.hold(pool, held, reason="no key")
    first = await many(pool, *numbered(1, 2))
    again = await many(pool, *numbered(1, 2))

    for one in (*first, *again):
        assert {due, disabled, held} == {ring.endpoint_id for ring in one.deliveries}
        assert [due] == [ring.endpoint_id for ring in one.due]
    found = await pool.fetch(
        "SELECT DISTINCT endpoint_id::text, waiting_for, last_error, held_at IS NOT NULL FROM hookseal.deliveries"
    )
    assert {
        (due, None, None, False),
        (disabled, "endpoint_disabled", "the endpoint is disabled", True),
        (held, "secret", "no key", True),
    } == set(map(tuple, found))


@pytest.mark.req("DEL-01")
async def test_each_event_is_stored_with_its_optional_fields(pool: Pool) -> None:
    """Each event is stored as `publish` stores it: data as written, bodies byte for byte, and the optional fields."""
    texts = [
        '{"z": 1,  "a": "Zo\\u00eb \U0001f680", "n": 1.10}',
        "null",
        '"\\u0000 \\ud800 \\\\u0041 \\\\\\u0041 \\" \\n"',
        "[]",
    ]
    whole = event(event_id=EventId("e-1"), correlation_id='order"7\\', traceparent=TRACEPARENT)
    published = await many(
        pool, *[(event(), text) for text in texts], (event(), b"\xff\xfe\x00binary"), (event(), b""), (whole, "1")
    )

    bodies = [await stored_body(pool, one.event_id) for one in published]
    assert texts == [body.decode().partition(',"data":')[2][:-1] for body in bodies[: len(texts)]]
    assert [b"\xff\xfe\x00binary", b""] == bodies[len(texts) : -1]
    row = await pool.fetchrow("SELECT correlation_id, traceparent FROM hookseal.events WHERE id = 'e-1'")
    assert row is not None
    assert ('order"7\\', TRACEPARENT) == tuple(row)


@pytest.mark.req("DEL-01")
async def test_an_event_published_alone_is_a_repeat_in_a_batch(pool: Pool) -> None:
    found = await by_sql(pool, as_json(event_id="e1"), as_json(event_id="e2"))
    assert [False, False] == [row["duplicate"] for row in found]
    alone = "SELECT duplicate FROM hookseal.publish('acme', 'a.b', '1', $1)"
    assert [True, True, False] == [await pool.fetchval(alone, each) for each in ("e1", "e2", "e3")]
    await pool.fetch("SELECT * FROM hookseal.publish_raw('acme', 'a.b', '\\x00ff', 'e4')")
    raw = json.dumps({"event_type": "a.b", "body": base64.b64encode(b"\0\xff").decode(), "event_id": "e4"})
    found = await by_sql(pool, as_json(event_id="e3"), raw, as_json(event_id="e5"))

    assert [(1, True), (2, True), (3, False)] == [(row["index"], row["duplicate"]) for row in found]


@pytest.mark.req("DEL-01")
async def test_repeated_events_return_their_first_results(pool: Pool) -> None:
    """In one call, events that were published before return their first results, and new ones are created."""
    for _ in range(2):
        await endpoint(pool, "acme", "*")
    first = await many(pool, *numbered(1, 4))
    second = await many(pool, *numbered(3, 6))
    third = await many(pool, *numbered(1, 6))

    assert [True, True, False, False] == [one.duplicate for one in second]
    assert [one.deliveries for one in first[2:]] == [one.deliveries for one in second[:2]]
    assert [one.deliveries for one in (*first, *second[2:])] == [one.deliveries for one in third]
    assert (6, 12) == (await count(pool), await count(pool, "deliveries"))


@pytest.mark.req("DEL-01")
async def test_an_event_given_twice_is_created_once(pool: Pool) -> None:
    await endpoint(pool, "acme", "*")
    [first, other, again, once_more] = await many(pool, *(numbered(2, 2) + numbered(1, 1)), *(numbered(2, 2) * 2))

    assert [False, False, True, True] == [one.duplicate for one in (first, other, again, once_more)]
    assert first.deliveries == again.deliveries == once_more.deliveries != other.deliveries
    assert (first.due, 2, 2) == (again.due, await count(pool), await count(pool, "deliveries"))


@pytest.mark.req("DEL-01")
@pytest.mark.parametrize("kept", [True, False], ids=["stored-before", "in-the-batch"])
@pytest.mark.parametrize(
    "other",
    [
        (event("other", event_id=EventId("e3")), "3"),
        (event(event_id=EventId("e3")), "4"),
        (event(event_id=EventId("e3")), b"3"),
    ],
    ids=["type", "data", "raw"],
)
async def test_a_used_event_id_in_a_batch_is_a_conflict(
    pool: Pool, kept: bool, other: tuple[NewEvent, str | bytes]
) -> None:
    if kept:
        await many(pool, *numbered(3, 3))
    before = [] if kept else numbered(3, 3)
    with pytest.raises(Conflict, match=r"^events\[4\]: event id is already used") as caught:
        await many(pool, *numbered(10, 13 - len(before)), *before, other, *numbered(20, 21))

    assert ("event_id", 4) == (caught.value.field, caught.value.index)
    assert int(kept) == await count(pool)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_database_refuses_a_malformed_event(pool: Pool) -> None:
    """The database refuses a malformed event with the first index and the field, and stores nothing."""
    for changes, field in LIMITS:
        with pytest.raises(Malformed) as caught:
            await many(pool, *numbered(1, 3), (event(**changes), "1"), (event("A"), "1"))
        with pytest.raises(asyncpg.PostgresError, match=r"^events\[2\]: ") as raised:
            await by_sql(pool, as_json(), as_json(**changes), as_json(event_type="A"))
        assert (changes, field, 3) == (changes, caught.value.field, caught.value.index)
        assert (changes, "HS422", field) == (changes, raised.value.sqlstate, raised.value.column_name)

    assert 0 == await count(pool)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_an_event_id_may_have_dots_and_colons(pool: Pool) -> None:
    """And 256 characters; of each way of publishing, and in the table itself, which refuses all others."""
    for name in ("evt.1:b", "...", "a" * 256):
        for way in (
            lambda given: publish_json(pool, given, "1"),
            lambda given: publish_raw(pool, given, b"1"),
            lambda given: publish(pool, given, "1", dated=True),
            lambda given: many(pool, (given, "1")),
        ):
            await way(event(event_id=EventId(name)))
            assert name == await pool.fetchval("DELETE FROM hookseal.events RETURNING id")
    await publish_json(pool, event(), "1")
    for name in (".", "..", "a/b", "a" * 257):
        with pytest.raises(asyncpg.CheckViolationError):
            await rows.change(pool, "events", id=name)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_a_malformed_tenant_is_refused(pool: Pool) -> None:
    for tenant, events in product(("_system", "-a", "a\n", "", None, "x" * 64), ([], [as_json()])):
        with pytest.raises(asyncpg.PostgresError, match=r"^tenant must be") as caught:
            await pool.fetch(SQL, tenant, events)
        assert ("HS422", "tenant") == (caught.value.sqlstate, caught.value.column_name)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_a_malformed_event_from_sql_is_refused_by_number(pool: Pool) -> None:
    found: list[tuple[str | None, str | None]] = []
    for given, _ in NO_EVENTS:
        with pytest.raises(asyncpg.PostgresError, match=r"^events\[2\]: ") as caught:
            await pool.fetch(SQL, "acme", [as_json(), given, "7"])
        assert "HS422" == caught.value.sqlstate
        found.append((given, caught.value.column_name))

    assert NO_EVENTS == found
    assert 0 == await count(pool)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_size_of_each_body_of_a_batch_is_limited(pool: Pool) -> None:
    """A body of 262,144 bytes as sent is accepted and one byte more is refused, raw or not."""
    around = len('{"type":"invoice.paid","timestamp":"2026-01-31T12:00:00.000Z","data":""}')
    most = MAX_BODY_BYTES - around
    await many(pool, (event(), b"x" * MAX_BODY_BYTES), (event(), '"' + "x" * most + '"'))
    for too_long in (b"x" * (MAX_BODY_BYTES + 1), '"' + "x" * (most + 1) + '"'):
        with pytest.raises(Malformed, match=r"^events\[1\]: body must be at most") as caught:
            await many(pool, (event(), "1"), (event(), too_long))
        assert ("body", 1) == (caught.value.field, caught.value.index)
    assert 2 == await count(pool)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_size_of_a_call_is_limited(pool: Pool) -> None:
    """A call accepts 1,000 events and 32 MiB of JSON; more are refused by Python and by SQL, and nothing is stored."""
    assert MOST_EVENTS == len(await many(pool, *numbered(1, MOST_EVENTS)))
    large = [(event(), '"' + "x" * 250_000 + '"')] * (MOST_BYTES // 250_000 + 1)
    for events in (numbered(1, MOST_EVENTS + 1), large):
        with pytest.raises(Malformed) as caught:
            batch(events)
        assert ("events", None) == (caught.value.field, caught.value.index)
    for texts in ([as_json()] * (MOST_EVENTS + 1), [as_json(data="x" * 250_000)] * len(large), None):
        with pytest.raises(asyncpg.PostgresError, match=r"^events must be") as refused:
            await pool.fetch(SQL, "acme", texts)
        assert ("HS422", "events") == (refused.value.sqlstate, refused.value.column_name)

    assert MOST_EVENTS == await count(pool)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_a_too_long_event_is_refused_before_it_is_parsed(pool: Pool) -> None:
    """An event of up to 1 MiB of JSON text is read; a longer one is refused before it is parsed."""
    most = as_json() + " " * (1_048_576 - len(as_json()))
    await by_sql(pool, most)
    with pytest.raises(
        asyncpg.PostgresError, match=r"^events\[2\]: body must be .*an event 1048576 as given"
    ) as refused:
        await by_sql(pool, as_json(), most + " ")

    assert ("HS422", "body") == (refused.value.sqlstate, refused.value.column_name)
    assert 1 == await count(pool)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_deliveries_of_a_call_are_limited(pool: Pool) -> None:
    """A call may create 20,000 deliveries; one that would create more is refused, and nothing is stored.

    Events without subscribers do not count.
    """
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " SELECT 'acme', hookseal.uuid7(), 'https://r.example/' || n, '{invoice.*}', 'old'"
        " FROM generate_series(1, 2000) AS n"
    )
    with pytest.raises(Malformed, match="at most 20000 deliveries") as caught:
        await many(pool, *numbered(1, 11), (event("other"), "1"))
    assert ("events", 0, 0) == (caught.value.field, await count(pool), await count(pool, "deliveries"))

    published = await many(pool, *numbered(1, 10), (event("other"), "1"))
    assert [2_000] * 10 + [0] == [len(one.deliveries) for one in published]


async def test_a_call_without_events_returns_no_rows(pool: Pool) -> None:
    assert ([], []) == (await many(pool), await by_sql(pool))


@pytest.mark.req("DEL-01")
async def test_a_role_publishes_batches_only_for_its_tenants(pool: Pool, database_url: str) -> None:
    async with login(pool, database_url) as (role, connection):

        async def is_refused(tenant: str = "acme") -> None:
            for dated in (False, True):
                with pytest.raises(Refused):
                    await publish_many(connection, TenantId(tenant), batch(numbered(1, 2)), dated=dated)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(SQL, tenant, [])

        await is_refused()
        await pool.execute(f"GRANT hookseal_producer TO {role}")
        await is_refused()
        await rows.grant(pool, role)
        await publish_many(connection, ACME, batch(numbered(1, 2)))
        await is_refused("globex")

    assert 2 == await count(pool)


async def _outcome(connection: object, events: Sequence[tuple[NewEvent, str | bytes]]) -> list[bool]:
    published = await publish_many(connection, ACME, batch(events))  # type: ignore[arg-type]
    return [one.duplicate for one in published]


@pytest.mark.req("DEL-01")
async def test_batches_in_opposite_orders_do_not_deadlock(pool: Pool) -> None:
    forwards = numbered(1, 300)
    backwards = forwards[::-1]
    async with pool.acquire() as one, pool.acquire() as other:
        await one.execute("SET deadlock_timeout = '10ms'")
        await other.execute("SET deadlock_timeout = '10ms'")
        for round_ in range(20):
            made = await asyncio.gather(_outcome(one, forwards), _outcome(other, backwards))
            assert 300 == sum(not duplicate for duplicates in made for duplicate in duplicates), f"round {round_}"
            await pool.execute("TRUNCATE hookseal.events, hookseal.deliveries CASCADE")


@pytest.mark.req("DEL-01")
async def test_a_batch_waits_for_another_transaction(pool: Pool) -> None:
    """Events that an open transaction has published are repeats once it commits, and are created if it rolls back."""
    await endpoint(pool, "acme", "*")
    for keeps, expected in ((True, [False, True, False]), (False, [False, False, False])):
        await pool.execute("TRUNCATE hookseal.events, hookseal.deliveries CASCADE")
        async with pool.acquire() as one, pool.acquire() as other:
            transaction = one.transaction()
            await transaction.start()
            await publish_many(one, ACME, batch(numbered(2, 2)))
            waiting = asyncio.ensure_future(_outcome(other, numbered(1, 3)))

            async def waits() -> bool:
                held_up = "SELECT cardinality(pg_blocking_pids($1)) > 0"
                return bool(await pool.fetchval(held_up, other.get_server_pid()))

            await eventually(waits)
            await (transaction.commit() if keeps else transaction.rollback())
            assert expected == await waiting
        assert (3, 3) == (await count(pool), await count(pool, "deliveries"))


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_callers_session_settings_change_nothing(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("SET standard_conforming_strings = off; SET plan_cache_mode = force_custom_plan")
        given = batch([(event("a.b", correlation_id="x\\y"), '"\\u0000\\\\"')])
        [published] = await publish_many(connection, ACME, given)
        with pytest.raises(HooksealError):
            await publish_many(connection, ACME, batch([(event("a b"), "1")]))
        assert "force_custom_plan" == await connection.fetchval("SHOW plan_cache_mode")

    assert (await stored_body(pool, published.event_id)).endswith(b',"data":"\\u0000\\\\"}')


async def test_a_batch_sends_one_notification(pool: Pool) -> None:
    """While a worker listens, a batch with due deliveries sends one notification.

    One without any, and one that its producer rings, send none.
    """
    heard: list[str] = []

    def collect(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        heard.append(str(payload))

    async with pool.acquire() as listening:
        await listening.add_listener("hookseal_unrung", collect)
        await many(pool, *numbered(1, 3))
        await rows.change(pool, "control", "notify", until=rows.ahead(hours=1))
        await many(pool, *numbered(4, 6))
        disabled = await endpoint(pool, "acme", "*")
        await rows.change(pool, "endpoints", disabled, enabled=False)
        await many(pool, *numbered(7, 9))
        await endpoint(pool, "acme", "*")
        await many(pool, *numbered(10, 12))
        await publish_many(pool, ACME, batch([(event("a.b"), "1")]), rings=True)
        await pool.execute("SELECT hookseal.publish('acme', 'a.b', '1'::json, rings => true)")
        await pool.execute("NOTIFY hookseal_unrung, 'the end'")
        while "the end" not in heard:
            await listening.execute("SELECT 1")
        await listening.remove_listener("hookseal_unrung", collect)

    assert ["", "the end"] == heard


@pytest.mark.req("OPS-09", part="previous-version")
async def test_a_driver_may_give_no_argument_a_type(pool: Pool) -> None:
    """Some drivers name no types. A later function of the same name would make such a call of a producer ambiguous."""
    async with pool.acquire() as connection:
        await connection.execute("PREPARE publish AS SELECT FROM hookseal.publish($1, $2, $3, $4, $5, $6, $7)")
        await connection.execute("PREPARE raw AS SELECT FROM hookseal.publish_raw($1, $2, $3, $4, $5, $6, $7)")
        await connection.execute("EXECUTE publish ('acme', 'a.b', '1', NULL, NULL, NULL, 'false')")
