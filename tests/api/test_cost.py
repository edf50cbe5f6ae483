"""What a call of the API costs in statements, and that no list reads more as tables grow."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, get_origin

import httpx
import pytest
from asyncpg.connection import LoggedQuery

from hookseal import Admin, Publisher
from hookseal.api import ALL, app
from hookseal.api.calls import CALLS, attempts, deliveries, messages
from hookseal.api.paging import ListOut
from hookseal.dispatcher.store import delivery_queries
from hookseal.postgres.pool import FairPool, Pool
from tests.doubles.sent import noted, reported
from tests.doubles.stored import Installation

OF = "/api/v1/app/acme"
OWN = "/api/hookseal/v1/app/acme"
MESSAGE = {"eventType": "invoice.paid", "payload": {"id": 1}}
FEW, MANY = 2_000, 20_000
SEARCHED = 1_000  # in place of 3,000 in a list, and of 5,000 in a count: so FEW are more
_MOST_RATIO = 1.5  # one more level of each index
_AND_BUFFERS = 200
_AND_ROWS = 1_000
# One endpoint has nine tenths of all deliveries. No trigger and no foreign key runs: they would take most of the time.
GROW = """
SET LOCAL session_replication_role = replica;
INSERT INTO hookseal.tenants (tenant_id, created_at)
SELECT 't' || n, now() + make_interval(secs => n) FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.event_types (name, description) SELECT 'a.t' || n, '' FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.api_tokens (tenant_id, id, name, digest, scopes, generation, signature, signature_key_id)
SELECT 't' || n % 10, hookseal.uuid7(), 'a' || n, sha256(n::text::bytea), '{{read}}', 1,
       decode(repeat('00', 64), 'hex'), '1'
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.replays (tenant_id, id, state, ended_at, states, until, end_id, rate, cursor, matched)
SELECT CASE WHEN n % 10 = 0 THEN 'acme' ELSE 'other' END, hookseal.uuid7(), 'done', now(), '{{failed}}', now(),
       hookseal.uuid7(), 10, hookseal.uuid7(), 1
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT CASE WHEN n % 10 = 0 THEN 'acme' ELSE 'other' END, hookseal.uuid7(), 'https://a.example/' || n, '{{*}}'
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT CASE WHEN n % 10 = 9 THEN 'other' ELSE 'acme' END, 'e' || n, 'invoice.paid',
       now() - interval '40 days' + make_interval(secs => n), '{{}}', ''
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, finished_at)
SELECT CASE WHEN n % 10 = 9 THEN 'other' ELSE 'acme' END, hookseal.uuid7(),
       CASE WHEN n % 10 = 9 THEN md5('other')::uuid ELSE $1::uuid END, 'e' || n, 'delivered', NULL, now()
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.delivery_links (tenant_id, id, endpoint_id, event_id)
SELECT tenant_id, id, endpoint_id, event_id FROM hookseal.deliveries ON CONFLICT DO NOTHING;
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker, endpoint_id)
SELECT tenant_id, id, 1, created_at + make_interval(secs => row_number() OVER ()), 'delivered', '{{}}', 'w', endpoint_id
FROM hookseal.deliveries ON CONFLICT DO NOTHING;
"""


@pytest.fixture
async def caller(admin: Admin, publisher: Publisher) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with a token that may do everything, which has been used today."""
    made = await admin.tokens.add(name="all", tenant_id="*", scopes=[*ALL], actor="me")
    headers = {"authorization": f"Bearer {made.token.reveal().decode()}"}
    transport = httpx.ASGITransport(app(admin, publisher))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        assert 200 == (await client.get("/api/v1/app")).status_code
        yield client


async def sent_by(admin: Admin, publisher: Publisher) -> list[LoggedQuery]:
    """Return a list that gets what both send."""
    source = await admin.tokens._session.source()
    assert isinstance(source, FairPool)
    return await noted(source, publisher._pool)


@pytest.mark.req("API-10", part="statements")
async def test_a_call_costs_few_statements(admin: Admin, publisher: Publisher, caller: httpx.AsyncClient) -> None:
    """One of them is that of the token. A message costs one more than `publish`; a read four at most."""
    added = (await caller.post(f"{OF}/endpoint", json={"url": "https://a.example/1"})).json()
    await caller.post(f"{OF}/msg", json=MESSAGE | {"eventId": "e1"})
    sent = await sent_by(admin, publisher)
    one = f"{OF}/endpoint/{added['id']}"
    costs = {}
    for name, method, path, body in (
        ("message.create", "POST", f"{OF}/msg", MESSAGE),
        ("message.create, repeated", "POST", f"{OF}/msg", MESSAGE | {"eventId": "e1"}),
        ("message.list", "GET", f"{OF}/msg?with_content=false", None),
        ("message.get", "GET", f"{OF}/msg/e1?with_content=false", None),
        ("message.get, with its payload", "GET", f"{OF}/msg/e1", None),
        ("endpoint.create", "POST", f"{OF}/endpoint", {"url": "https://a.example/2"}),
        ("endpoint.list", "GET", f"{OF}/endpoint", None),
        ("endpoint.get", "GET", one, None),
        ("endpoint.patch", "PATCH", one, {"description": "billing"}),
        ("endpoint.get_secret", "GET", f"{one}/secret", None),
        ("endpoint.get_stats", "GET", f"{one}/stats", None),
        ("endpoint.rotate_secret", "POST", f"{one}/secret/rotate", {}),
        ("message_attempt.list_by_endpoint", "GET", f"{OF}/attempt/endpoint/{added['id']}", None),
        ("message_attempt.list_by_msg", "GET", f"{OF}/attempt/msg/e1", None),
        ("message_attempt.list_attempted_messages", "GET", f"{one}/msg?with_content=false", None),
        ("message_attempt.list_attempted_destinations", "GET", f"{OF}/msg/e1/endpoint", None),
        ("application.list", "GET", "/api/v1/app", None),
        ("endpoint.delete", "DELETE", one, None),
    ):
        await reported()
        sent.clear()
        response = await caller.request(method, path, json=body)
        assert 2 == response.status_code // 100, (name, response.text)
        await reported()
        costs[name] = len(sent)

    assert {
        "message.create": 2,
        "message.create, repeated": 2,
        "message.list": 2,
        "message.get": 2,
        "message.get, with its payload": 8,
        "endpoint.create": 17,
        "endpoint.list": 2,
        "endpoint.get": 2,
        "endpoint.patch": 10,
        "endpoint.get_secret": 8,
        "endpoint.get_stats": 3,
        "endpoint.rotate_secret": 25,
        "message_attempt.list_by_endpoint": 4,
        "message_attempt.list_by_msg": 4,
        "message_attempt.list_attempted_messages": 3,
        "message_attempt.list_attempted_destinations": 4,
        "application.list": 2,
        "endpoint.delete": 13,
    } == costs


@pytest.mark.req("API-10", part="shared")
async def test_messages_that_come_at_once_share_statements(
    admin: Admin, publisher: Publisher, caller: httpx.AsyncClient, installation: Installation
) -> None:
    """So do the look-ups of their tokens. Each has its own answer; those that are wrong fail alone."""
    await caller.post(f"{OF}/msg", json=MESSAGE | {"eventId": "used"})  # now it is known that one has no deliveries
    sent = await sent_by(admin, publisher)

    async def answers(given: list[dict[str, Any]]) -> list[httpx.Response]:
        return await asyncio.gather(*(caller.post(f"{OF}/msg", json=each) for each in given))

    good = [MESSAGE | {"eventId": f"e-{number}", "channels": ["b", "a", "b"]} for number in range(120)]
    first = await answers(good[:60])
    await reported()
    assert len(sent) < 12
    assert {202} == {answer.status_code for answer in first}

    wrong = [
        MESSAGE | {"eventId": "used", "payload": {"id": 2}},
        MESSAGE | {"eventType": "a..b"},
        MESSAGE | {"payload": {"x": "y" * 262_144}},
    ]
    then = await answers([*good[60:80], wrong[0], *good[80:100], *wrong[1:], *good[100:]])
    assert [409, 422, 422] == [answer.status_code for answer in then if answer.status_code != 202]

    stored = await installation.pool.fetch("SELECT id, occurred_at FROM hookseal.events WHERE id LIKE 'e-%'")
    shown = {answer.json()["id"]: answer.json() for answer in (*first, *then) if answer.status_code == 202}
    assert {row["id"]: row["occurred_at"].isoformat().replace("+00:00", "Z") for row in stored} == {
        key: each["timestamp"] for key, each in shown.items()
    }
    assert (120, {("a", "b")}) == (len(shown), {tuple(each["channels"]) for each in shown.values()})
    assert good[0]["eventId"] == first[0].json()["id"]


@pytest.mark.req("API-10", part="shared")
async def test_a_client_that_goes_away_costs_the_others_nothing(url: str, installation: Installation) -> None:
    """Its message is stored or not; those that came with it are."""
    body = json.dumps(MESSAGE)

    async def sent(number: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            f"POST {OF}/msg HTTP/1.1\r\nhost: a\r\nauthorization: Bearer every\r\ncontent-type: application/json\r\n"
            f"idempotency-key: {number}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        if number % 2:
            writer.transport.abort()
            return False
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return answer.startswith(b"HTTP/1.1 202 ")

    assert [number % 2 == 0 for number in range(40)] == await asyncio.gather(*map(sent, range(40)))
    assert 20 <= await installation.pool.fetchval("SELECT count(*) FROM hookseal.events")


def lists(endpoint: str) -> dict[str, str]:
    """Return the path of each list, and of some of its pages."""
    return {
        "application.list": "/api/v1/app?order=descending",
        "application.list, up": "/api/v1/app?order=ascending",
        "endpoint.list": f"{OF}/endpoint",
        "hookseal.audit.list": f"{OWN}/audit",
        "hookseal.delivery.list": f"{OWN}/delivery",
        "hookseal.delivery.list, of no such type": f"{OWN}/delivery?event_type=no.such",
        "endpoint.get_stats": f"{OF}/endpoint/{endpoint}/stats",
        "operational_webhook.endpoint.list": "/api/v1/operational-webhook/endpoint",
        "endpoint.list, up": f"{OF}/endpoint?order=ascending",
        "message.list": f"{OF}/msg?with_content=false",
        "message.list, a page on": f"{OF}/msg?with_content=false&iterator=e1500",
        "message.list, a page back": f"{OF}/msg?with_content=false&iterator=-e1500",
        "message.list, in vain": f"{OF}/msg?with_content=false&after=2050-01-01T00:00:00Z",
        "message.list, of no such type": f"{OF}/msg?with_content=false&event_types=no.such",
        "message.list, back to no such type": f"{OF}/msg?event_types=no.such&iterator=-e500",
        "message_attempt.list_by_endpoint": f"{OF}/attempt/endpoint/{endpoint}",
        "message_attempt.list_by_endpoint, of no such type": f"{OF}/attempt/endpoint/{endpoint}?event_types=no.such",
        "message_attempt.list_by_endpoint, failed": f"{OF}/attempt/endpoint/{endpoint}?status=2",
        "message_attempt.list_by_msg": f"{OF}/attempt/msg/e1500",
        "message_attempt.list_attempted_messages": f"{OF}/endpoint/{endpoint}/msg?with_content=false",
        "message_attempt.list_attempted_messages, failed": f"{OF}/endpoint/{endpoint}/msg?with_content=false&status=2",
        "message_attempt.list_attempted_messages, of no channel": f"{OF}/endpoint/{endpoint}/msg?channel=no",
        "message_attempt.list_attempted_destinations": f"{OF}/msg/e1500/endpoint",
        "background_task.list": "/api/v1/background-task",
        "event_type.list": "/api/v1/event-type",
        "event_type.list, down": "/api/v1/event-type?order=descending",
        "hookseal.token.list": "/api/hookseal/v1/token",
    }


@pytest.mark.req("API-10", part="lists")
async def test_no_list_reads_more_as_tables_grow(
    admin: Admin,
    publisher: Publisher,
    caller: httpx.AsyncClient,
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each statement of each list reads as many blocks and rows beside ten times as many of everything.

    So does one whose filters match nothing, and one that counts.
    """
    for module in (messages, attempts, deliveries):
        monkeypatch.setattr(module, "SEARCHED", SEARCHED)
    monkeypatch.setattr(delivery_queries.count_by_state, "__kwdefaults__", {"walked": SEARCHED})
    added = await admin.endpoints.add(tenant_id="acme", url="https://b.example", event_types=["*"], actor="me")
    paths = lists(added.endpoint_id)
    named = {name.split(",")[0] for name in paths}
    assert {call.name for call in CALLS if get_origin(call.result) is ListOut} == named - {"endpoint.get_stats"}
    sent = await sent_by(admin, publisher)

    async def grown(least: int, most: int) -> dict[str, tuple[int, float, str]]:
        text = GROW.format(least=least, most=most).replace("$1", f"'{added.endpoint_id}'")
        async with installation.pool.acquire() as connection:
            async with connection.transaction():
                await connection.execute(text)
            await connection.execute("VACUUM (ANALYZE)")
        found = {}
        for name, path in paths.items():
            sent.clear()
            response = await caller.get(path)
            assert 200 == response.status_code, (name, response.text)
            await reported()
            found[name] = await read_by(installation.pool, sent)
        return found

    few, many = await grown(1, FEW), await grown(FEW + 1, MANY)
    more = [
        f"{name}: {few[name][:2]} -> {buffers}, {rows}\n{plans}"
        for name, (buffers, rows, plans) in many.items()
        if buffers > _MOST_RATIO * few[name][0] + _AND_BUFFERS or rows > few[name][1] + _AND_ROWS
    ]
    assert [] == more


async def read_by(pool: Pool, sent: list[LoggedQuery]) -> tuple[int, float, str]:
    """Return how many blocks and rows these statements read, and their plans."""
    buffers, rows, plans = 0, 0.0, ""
    async with pool.acquire() as connection:
        # While a table is small, a scan of it looks as cheap as the index that serves when it is large.
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        for query in sent:
            explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {query.query}"
            plan = json.loads(await connection.fetchval(explain, *query.args))[0]["Plan"]
            buffers += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            rows += _rows(plan)
            plans += json.dumps(plan, indent=1)
        await connection.execute("RESET enable_seqscan; RESET enable_bitmapscan")
    return buffers, rows, plans


def _rows(plan: dict[str, Any]) -> float:
    """Return how many rows all nodes of the plan have read or passed by."""
    passed: float = sum(number for name, number in plan.items() if name.startswith("Rows Removed"))
    own: float = (plan["Actual Rows"] + passed) * plan["Actual Loops"]
    return own + sum(_rows(inner) for inner in plan.get("Plans", ()))
