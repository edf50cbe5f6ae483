"""Messages are events: published once, sent byte for byte, and read as they were."""

from typing import Any

import httpx
import pytest

from hookseal import Admin, Publisher
from hookseal.api.calls.messages import example_of
from hookseal.api.problems import Problem
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
