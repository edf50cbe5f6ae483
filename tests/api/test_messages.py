"""Messages are events: published once, sent byte for byte, and read as they were."""

from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from hookseal import Admin, Publisher
from hookseal.api.calls import messages
from hookseal.api.calls.messages import example_of
from hookseal.api.problems import Problem
from hookseal.errors import Malformed
from hookseal.postgres.pool import Pool
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

PATH = "/api/v1/app/acme/msg"
JSON = {"content-type": "application/json"}


async def created(client: httpx.AsyncClient, *, key: str | None = None, **message: Any) -> httpx.Response:
    """Publish a message."""
    headers = {} if key is None else {"idempotency-key": key}
    return await client.post(PATH, json={"eventType": "invoice.paid", "payload": {"id": 1}} | message, headers=headers)


async def test_a_message_is_an_event(client: httpx.AsyncClient, admin: Admin) -> None:
    response = await created(client, eventId="invoice-1")
    stored = await admin.events.get(tenant_id="acme", event_id="invoice-1")
    message: dict[str, Any] = {
        "id": "invoice-1",
        "eventId": "invoice-1",
        "eventType": "invoice.paid",
        "payload": {"id": 1},
    }
    message |= {"channels": None, "timestamp": stored.occurred_at.isoformat().replace("+00:00", "Z")}

    assert (202, message) == (response.status_code, response.json())
    assert message == (await client.get(f"{PATH}/invoice-1")).json()
    assert message | {"payload": {}} == (await client.get(f"{PATH}/invoice-1?with_content=false")).json()


async def test_the_payload_is_sent_as_it_was_given(client: httpx.AsyncClient, admin: Admin) -> None:
    """No number, escape, order or space of it changes, in the event and in the answers."""
    payload = '{"big": 100000000000000000000, "price":1.10,\t"b":1,"a": "\\u00e9é", "e": 1E+2}'
    content = f'{{"eventType": "a", "eventId": "e-1", "payload": {payload} }}'.encode()
    response = await client.post(PATH, content=content, headers=JSON)

    assert payload.encode() == await admin.events.payload(tenant_id="acme", event_id="e-1", actor="me")
    assert payload in response.text
    assert payload in (await client.get(f"{PATH}/e-1")).text


@pytest.mark.req("API-05")
async def test_a_repeated_message_is_one_event(client: httpx.AsyncClient, admin: Admin) -> None:
    """The same key, or the same id, with the same content: the first answer; with other content an error."""
    by_key = [await created(client, key="auto_1") for _ in range(3)]
    by_id = [await created(client, eventId="e-1", key=f"auto_{number}") for number in range(2, 4)]
    other_key = await created(client, key="auto_1", payload={"id": 2})
    other_id = await created(client, key="auto_4", eventId="e-1", payload={"id": 2})
    first, *others = (each.json() for each in (*by_key, *by_id))

    assert [first, first, others[-1], others[-1]] == others
    assert first["id"] != others[-1]["id"]
    assert (422, ["header", "idempotency-key"]) == (other_key.status_code, other_key.json()["detail"][0]["loc"])
    assert (409, "conflict") == (other_id.status_code, other_id.json()["code"])
    assert 2 == len((await admin.events.list(tenant_id="acme")).items)


async def test_a_key_is_of_one_tenant(client: httpx.AsyncClient) -> None:
    ids = []
    for tenant in ("acme", "globex"):
        message = {"eventType": "a", "payload": {"of": tenant}}
        response = await client.post(f"/api/v1/app/{tenant}/msg", json=message, headers={"idempotency-key": "k"})
        ids.append((response.status_code, response.json()["id"]))

    assert ids[0] == ids[1]
    assert 202 == ids[0][0]


@pytest.mark.req("API-07")
@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"payload": [1]}, "payload"),
        ({"payload": None}, "payload"),
        ({"payload": "text"}, "payload"),
        ({"payload": {"x": "y" * 262_144}}, "payload"),
        ({"eventType": "a..b"}, "eventType"),
        ({"eventType": ""}, "eventType"),
        ({"eventId": "a b"}, "eventId"),
        ({"payloadRetentionPeriod": 5}, "payloadRetentionPeriod"),
        ({"payloadRetentionHours": 5}, "payloadRetentionHours"),
        ({"transformationsParams": {"rawPayload": "x"}}, "transformationsParams"),
        ({"deliverAt": "2030-01-01T00:00:00Z"}, "deliverAt"),
        ({"tags": ["a"]}, "tags"),
        ({"application": {"name": "a"}}, "application"),
    ],
)
async def test_what_is_wrong_in_a_message_is_named(change: dict[str, Any], loc: str, client: httpx.AsyncClient) -> None:
    response = await created(client, **change)

    assert (422, ["body", loc]) == (response.status_code, response.json()["detail"][0]["loc"])


@pytest.mark.parametrize("key", ["", "a" * 257, "a\tb"])
async def test_a_wrong_key_is_refused(key: str, client: httpx.AsyncClient) -> None:
    response = await created(client, key=key)

    assert (422, ["header", "idempotency-key"]) == (response.status_code, response.json()["detail"][0]["loc"])


async def test_a_body_that_is_no_object_is_shown_in_base64(client: httpx.AsyncClient, publisher: Publisher) -> None:
    for number, body in enumerate((b"[1]", b"\xff", b'{"a": 1, "a": 2}', b"text", b'{"a": NaN}')):
        await publisher.publish(tenant_id="acme", event_type="a", body=body, event_id=f"e-{number}")
        payload = (await client.get(f"{PATH}/e-{number}")).json()["payload"]
        assert {"base64"} == payload.keys(), body


async def test_who_reads_a_payload_is_on_record(client: httpx.AsyncClient, installation: Installation) -> None:
    await created(client, eventId="e-1")
    before = len(await audited(installation.pool))
    await client.get(f"{PATH}/e-1?with_content=false")
    assert before == len(await audited(installation.pool))
    await client.get(f"{PATH}/e-1")
    [row] = (await audited(installation.pool))[before:]
    assert ("token:every", "event.payload_read") == (row["who"], row["action"])


async def test_a_page_has_a_limit_of_bytes(
    client: httpx.AsyncClient, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends before the payloads exceed it, in both directions; at least one is on each page, and none is lost."""
    monkeypatch.setattr(messages, "MOST_PAGE_BYTES", 250)
    for number in range(7):
        body = msgspec.json.encode({"x": "y" * (400 if number == 3 else 92)})
        await publisher.publish(tenant_id="acme", event_type="a", body=body, event_id=f"e-{number}")

    async def walked(**parameters: str) -> list[list[str]]:
        pages = []
        while True:
            page = (await client.get(PATH, params=parameters)).json()
            assert all(each["payload"] for each in page["data"])
            pages.append([each["id"] for each in page["data"]])
            if page["done"]:
                return pages
            parameters |= {"iterator": page["iterator"]}

    assert [["e-6", "e-5"], ["e-4"], ["e-3"], ["e-2", "e-1"], ["e-0"]] == await walked(limit="5")
    back = (await client.get(PATH, params={"iterator": "-e-0"})).json()
    assert (["e-2", "e-1"], False, "-e-2") == (
        [each["id"] for each in back["data"]],
        back["done"],
        back["prevIterator"],
    )
    without = (await client.get(PATH, params={"with_content": "false"})).json()
    assert (7, True) == (len(without["data"]), without["done"])


async def test_a_page_is_measured_as_it_is_shown(
    client: httpx.AsyncClient, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base64 of a payload that is no JSON counts, not the payload; and the whole answer has at most 4 MB."""
    for number in range(17):
        await publisher.publish(tenant_id="acme", event_type="a", body=b"\xff" * 262_144, event_id=f"e-{number}")
    page = await client.get(PATH)
    assert (9, False) == (len(page.json()["data"]), page.json()["done"])
    assert 3_000_000 < len(page.content) <= 4_000_000

    monkeypatch.setattr(messages, "MOST_PAGE_BYTES", 1)
    alone = (await client.get(PATH, params={"iterator": page.json()["iterator"]})).json()
    assert (["e-7"], False) == ([each["id"] for each in alone["data"]], alone["done"])


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_an_event_for_too_many_endpoints_is_refused(
    client: httpx.AsyncClient, publisher: Publisher, installation: Installation
) -> None:
    """It may have 20,000 deliveries. One with more is refused before anything is written, by each way to publish.

    A repeat of an event that was published before is answered all the same.
    """
    more = """
        INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
        SELECT 'acme', hookseal.uuid7(), 'https://r.example/' || n, '{a.*}'
        FROM generate_series($1::int, $2::int) AS n"""
    await installation.pool.execute(more, 1, 20_000)
    first = await publisher.publish(tenant_id="acme", event_type="a.b", data=1, event_id="e-1")
    assert (20_000, False) == (len(first.deliveries), first.duplicate)

    await installation.pool.execute(more, 20_001, 20_001)
    again = await publisher.publish(tenant_id="acme", event_type="a.b", data=1, event_id="e-1")
    assert (20_000, True) == (len(again.deliveries), again.duplicate)
    text = "must be one to which at most 20000 endpoints of the tenant subscribe"
    with pytest.raises(Malformed, match=text) as caught:
        await publisher.publish(tenant_id="acme", event_type="a.b", data=1)
    assert "event_type" == caught.value.field
    answer = await client.post(PATH, json={"eventType": "a.b", "payload": {}})
    assert (422, [["body", "eventType"]]) == (answer.status_code, [each["loc"] for each in answer.json()["detail"]])
    assert f"eventType {text}" == answer.json()["detail"][0]["msg"]
    async with installation.pool.acquire() as connection, connection.transaction():
        with pytest.raises(asyncpg.PostgresError) as refused:
            async with connection.transaction():
                await connection.execute("SELECT hookseal.publish('acme', 'a.b', '1')")
        written = await connection.fetchval("SELECT pg_stat_get_xact_tuples_inserted('hookseal.events'::regclass)")
    assert ("HS422", 0) == (refused.value.sqlstate, written)
    await publisher.publish(tenant_id="acme", event_type="other", data=1)
    assert 2 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.events")


async def test_messages_to_an_endpoint_have_a_limit_of_bytes(
    client: httpx.AsyncClient, admin: Admin, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MOST_PAGE_BYTES", 250)
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test")
    for number in range(3):
        body = msgspec.json.encode({"x": "y" * 92})
        await publisher.publish(tenant_id="acme", event_type="a", body=body, event_id=f"e-{number}")
    first = (await client.get("/api/v1/app/acme/endpoint/main/msg")).json()
    rest = (await client.get("/api/v1/app/acme/endpoint/main/msg", params={"iterator": first["iterator"]})).json()

    assert ([["e-2", "e-1"], ["e-0"]], [False, True]) == (
        [[each["id"] for each in page["data"]] for page in (first, rest)],
        [first["done"], rest["done"]],
    )


def test_what_left_meanwhile_ends_no_page() -> None:
    some = {"b": messages.NOTHING}

    assert [2, 3, 0] == [
        messages.number_of_fitting(["a", "b", "c"], some),
        messages.number_of_fitting(["a", "b", "c"], {}),
        messages.number_of_fitting([], {}),
    ]


MANY = "/api/hookseal/v1/app/acme/msg"


async def test_many_messages_are_published_at_once(client: httpx.AsyncClient, admin: Admin) -> None:
    """Each with its id and its deliveries, in their order; a repetition with the same key is answered as the first.

    Only of an `eventId` it says that it was there.
    """
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["b"], actor="test")
    given = [
        {"eventType": "a", "payload": {"n": 1}},
        {"eventType": "b", "eventId": "mine", "payload": {"n": 1.10}},
        {"eventType": "a", "payload": {"n": 2}},
    ]
    answers = [
        await client.post(MANY, json={"messages": given}, headers={"idempotency-key": key})
        for key in ("one", "one", "two")
    ]
    first, again, other = [each.json()["data"] for each in answers]
    assert [202] * 3 == [each.status_code for each in answers]
    assert [("a", False, 0), ("b", False, 1), ("a", False, 0)] == [
        (each["eventType"], each["duplicate"], each["deliveries"]) for each in first
    ]
    assert "mine" == first[1]["id"]
    assert [first[0], first[1] | {"duplicate": True}, first[2]] == again
    assert 5 == len({each["id"] for each in first + other})
    assert b'{"n":1.1}' == await admin.events.payload(tenant_id="acme", event_id="mine", actor="me")


@pytest.mark.parametrize(
    ("second", "status", "loc", "text"),
    [
        ({"eventType": "a..b", "payload": {}}, 422, ["body", "messages", "1", "eventType"], "eventType must"),
        ({"eventType": "a", "payload": [1]}, 422, ["body", "messages", "1", "payload"], "must be a JSON object"),
        (
            {"eventType": "a", "payload": {"x": "y" * 262_144}},
            422,
            ["body", "messages", "1", "payload"],
            "payload must",
        ),
        (
            {"eventType": "a", "eventId": "a b", "payload": {}},
            422,
            ["body", "messages", "1", "eventId"],
            "eventId must",
        ),
        ({"eventType": "a", "payload": {}, "tags": ["x"]}, 422, ["body", "messages", "1", "tags"], "is not supported"),
        ({"eventType": "a", "eventId": "taken", "payload": {}}, 409, None, "messages[1]: "),
    ],
)
async def test_one_faulty_message_of_many_is_named(
    second: dict[str, Any], status: int, loc: list[str] | None, text: str, client: httpx.AsyncClient, admin: Admin
) -> None:
    """Nothing is stored then."""
    assert 202 == (await created(client, eventId="taken")).status_code
    messages_given = [{"eventType": "a", "payload": {}}, second]
    refused = await client.post(MANY, json={"messages": messages_given}, headers={"idempotency-key": "k"})
    detail = refused.json()["detail"]

    assert status == refused.status_code
    if loc is not None:
        assert loc == detail[0]["loc"]
    assert (detail if loc is None else detail[0]["msg"]).startswith(text), detail
    assert ["taken"] == [each.event_id for each in (await admin.events.list(tenant_id="acme")).items]


async def test_many_messages_have_limits(client: httpx.AsyncClient) -> None:
    one = {"eventType": "a", "payload": {}}
    for messages_given, loc in (([], ["body", "messages"]), ([one] * 1_001, ["body", "messages"])):
        refused = await client.post(MANY, json={"messages": messages_given})
        assert (422, loc) == (refused.status_code, refused.json()["detail"][0]["loc"])
    assert 202 == (await client.post(MANY, json={"messages": [one] * 1_000})).status_code
    other = await client.post(MANY, json={"messages": [one]}, headers={"idempotency-key": "k"})
    changed = await client.post(
        MANY, json={"messages": [one | {"payload": {"x": 1}}]}, headers={"idempotency-key": "k"}
    )
    assert (202, 422, ["header", "idempotency-key"]) == (
        *(other.status_code, changed.status_code, changed.json()["detail"][0]["loc"]),
    )


async def test_an_example_of_an_unknown_type_says_so(client: httpx.AsyncClient, admin: Admin) -> None:
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test")
    refused = await client.post("/api/v1/app/acme/endpoint/main/send-example", json={"eventType": "no.such"})

    assert (422, "is not in the catalogue: give a payload") == (refused.status_code, refused.json()["detail"][0]["msg"])


async def test_a_deleted_tenant_gets_no_message(client: httpx.AsyncClient, admin: Admin) -> None:
    """As if it had never been there; one that is added again does."""
    await admin.tenants.add(tenant_id="acme", actor="test")
    await admin.tenants.delete(tenant_id="acme", actor="test")
    one = await created(client)
    many = await client.post(MANY, json={"messages": [{"eventType": "a", "payload": {}}]})
    await admin.tenants.add(tenant_id="acme", actor="test")

    assert [(404, "not_found")] * 2 == [(each.status_code, each.json()["code"]) for each in (one, many)]
    assert 202 == (await created(client)).status_code


@pytest.mark.parametrize(
    ("schemas", "index", "expected"),
    [
        ('{"1": {"examples": [{"a": 1}, {"b": 1.10}]}}', 1, b'{"b": 1.10}'),
        ('{"9": {"examples": "none"}, "10": {"examples": [{}]}}', 0, b"{}"),
        ('{"1": {"examples": [{}]}}', 1, None),
        ('{"1": {"examples": [{}]}}', -1, None),
        ('{"1": {"examples": "none"}}', 0, None),  # a schema may have anything there
        ('{"1": {"examples": {"a": 1}}}', 0, None),
        ('{"1": {}}', 0, None),
        ("{}", 0, None),
        (None, 0, None),
    ],
)
def test_an_example_is_one_of_the_newest_schema(schemas: str | None, index: int, expected: bytes | None) -> None:
    if expected is not None:
        assert expected == example_of(schemas, index)
        return
    with pytest.raises(Problem) as caught:
        example_of(schemas, index)
    assert 422 == caught.value.status


@pytest.mark.req("OPS-03", part="trace-context")
async def test_a_message_has_the_trace_of_its_request(client: httpx.AsyncClient, pool: Pool) -> None:
    """That of the headers `traceparent` and `tracestate`. As the standard says, one that is none is ignored."""
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    message = {"eventType": "a", "payload": {}}
    given = (
        [("traceparent", trace)],
        [("traceparent", trace), ("tracestate", "a=1"), ("tracestate", "b=2")],
        [("traceparent", trace), ("tracestate", "?")],
        [("tracestate", "a=1")],
        *([("traceparent", each)] for each in ("nonsense", trace.replace("a", "0"), trace.upper(), f"ff{trace[2:]}")),
    )
    for number, headers in enumerate(given):
        one = message | {"eventId": f"{number}-one"}
        many = {"messages": [message | {"eventId": f"{number}-{each}"} for each in ("two", "three")]}
        assert 202 == (await client.post(PATH, json=one, headers=headers)).status_code, headers
        answer = await client.post("/api/hookseal/v1/app/acme/msg", json=many, headers=headers)
        assert 202 == answer.status_code, headers

    found = await pool.fetch(
        "SELECT left(id, 1)::integer AS number, traceparent, tracestate, count(*) FROM hookseal.events"
        " GROUP BY 1, 2, 3 ORDER BY 1"
    )
    expected = [(trace, None), (trace, "a=1,b=2"), (trace, None), *[(None, None)] * 5]
    assert [(number, *each, 3) for number, each in enumerate(expected)] == [tuple(row) for row in found]
