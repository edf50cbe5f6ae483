"""Requests with an `Idempotency-Key`: one effect for a key, and the first answer for each repetition."""

import asyncio
import json
from typing import Any, Final

import httpx
import pytest
from svix.api import EndpointIn
from svix.api.endpoint import EndpointCreateOptions

from hookseal import Admin
from hookseal.api.calls import CALLS
from hookseal.operations import operator
from tests.api.changes import CALL, CHANGES, HOOK, NOWHERE, Change
from tests.api.official import official
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("API-05")

KEY: Final = {"idempotency-key": "auto_7d2f9c1e"}
# These make of the key the id of the event, the resend or the rotation, which is unique.
BY_AN_ID: Final = {
    *("message.create", "message_attempt.resend"),
    *("endpoint.rotate_secret", "operational_webhook.endpoint.rotate_secret"),
    "hookseal.message.create_many",
}
# These change nothing when they are repeated, or only make another token, since the first is stored nowhere.
REPEATED: Final = {
    *("authentication.app_portal_access", "authentication.expire_all", "authentication.logout"),
    "hookseal.probe",
}
WITH_A_KEY: Final = [pytest.param(each, id=each.name) for each in CHANGES if CALL[each.name].once]
PATH: Final = "/api/v1/app/acme/endpoint"


def bearing(name: str) -> dict[str, str]:
    """Return the headers of a request with this access and the key."""
    return {"authorization": f"Bearer {name}", **KEY}


async def kept(installation: Installation) -> int:
    """Return how many keys are kept."""
    number: int = await installation.pool.fetchval("SELECT count(*) FROM hookseal.idempotency_keys")
    return number


@pytest.mark.pure
def test_every_post_has_one_effect_for_a_key() -> None:
    posts = {call.name for call in CALLS if call.method == "POST"}

    assert posts - BY_AN_ID - REPEATED == {call.name for call in CALLS if call.once is not None}
    assert {call.name for call in CALLS if call.method != "GET"} - REPEATED == {change.name for change in CHANGES}


@pytest.mark.parametrize("change", WITH_A_KEY)
async def test_a_repetition_gets_the_first_answer(
    change: Change, client: httpx.AsyncClient, installation: Installation
) -> None:
    """With other content it is refused. Without the key it is another request."""
    names = await change.prepare(installation)
    path = change.path(names)
    first, again = [await client.post(path, json=change.body, headers=KEY) for _ in range(2)]

    assert CALL[change.name].status == first.status_code == again.status_code, first.text
    assert first.json() | {"token": None} == again.json() | {"token": None}
    assert again.json().get("token") is None
    assert 1 == await change.effects(installation)
    elsewhere = path
    for name in ("endpoint_id", "delivery_id", "job_id"):
        elsewhere = elsewhere.replace(names[name], NOWHERE)
    other = await client.post(path if change.other else elsewhere, json=change.other, headers=KEY)
    assert (422, ["header", "idempotency-key"]) == (other.status_code, other.json()["detail"][0]["loc"])
    assert (1, 1) == (await change.effects(installation), await kept(installation))


@pytest.mark.parametrize("change", [pytest.param(each, id=each.name) for each in CHANGES if each.method == "POST"])
async def test_requests_at_the_same_time_have_one_effect(
    change: Change, client: httpx.AsyncClient, installation: Installation
) -> None:
    """Each waits for the first, and gets its answer."""
    path = change.path(await change.prepare(installation))
    answers = await asyncio.gather(*(client.post(path, json=change.body, headers=KEY) for _ in range(6)))

    assert [change.statuses[0]] * 6 == [answer.status_code for answer in answers], [each.text for each in answers]
    assert 1 == len({json.dumps(answer.json() | {"token": None}) for answer in answers})
    assert 1 == await change.effects(installation)


@pytest.mark.parametrize(
    ("name", "lock"),
    [
        ("endpoint.create", "LOCK TABLE hookseal.idempotency_keys IN SHARE MODE"),
        ("message_attempt.resend", "SELECT id FROM hookseal.deliveries FOR UPDATE"),
    ],
)
async def test_a_request_waits_for_the_first_only_so_long(
    name: str, lock: str, client: httpx.AsyncClient, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is to be repeated, and has the effect once the first has ended without it."""
    monkeypatch.setattr(operator, "LOCK_SECONDS", 0.05)
    change = next(each for each in CHANGES if each.name == name)
    path = change.path(await change.prepare(installation))
    async with installation.pool.acquire() as connection, connection.transaction():
        await connection.execute(lock)
        refused = await client.post(path, json=change.body, headers=KEY)
    again = await client.post(path, json=change.body, headers=KEY)

    assert (503, "1", CALL[name].status) == (refused.status_code, refused.headers["retry-after"], again.status_code)
    assert 1 == await change.effects(installation)


async def test_a_request_has_one_key(client: httpx.AsyncClient, installation: Installation) -> None:
    headers = [("idempotency-key", "one"), ("Idempotency-Key", "one")]
    answer = await client.post(PATH, json={"url": HOOK}, headers=headers)

    assert (400, {"code": "bad_request", "detail": "the header `idempotency-key` is given twice"}) == (
        *(answer.status_code, answer.json()),
    )
    assert 0 == await kept(installation)


async def test_a_key_is_of_one_access(url: str, installation: Installation) -> None:
    """Another token, also of the same tenant or for every one, has other keys: it is neither refused nor answered."""
    async with httpx.AsyncClient(base_url=url) as client:

        async def made(access: str, tenant: str) -> httpx.Response:
            endpoint = {"url": f"https://{access}.example"}
            return await client.post(f"/api/v1/app/{tenant}/endpoint", json=endpoint, headers=bearing(access))

        answers = [
            await made(access, tenant)
            for access, tenant in (("acme", "acme"), ("operator", "acme"), ("every", "acme"), ("globex", "globex"))
        ]
    assert [201] * 4 == [answer.status_code for answer in answers]
    assert 4 == len({answer.json()["id"] for answer in answers}) == await kept(installation)


async def test_an_id_of_a_key_is_of_one_access(url: str, admin: Admin) -> None:
    """So is what a call makes an id of: with the key of another token it publishes, rotates and sends again."""
    added = await admin.endpoints.add(tenant_id="acme", url=HOOK, event_types=["*"], actor="test")
    message, one = {"eventType": "a", "payload": {"id": 1}}, f"{PATH}/{added.endpoint_id}"
    async with httpx.AsyncClient(base_url=url) as client:

        async def of_each(path: str, body: dict[str, Any], status: int) -> list[Any]:
            answers = [
                await client.post(path, json=body, headers=bearing(access)) for access in ("acme", "acme", "every")
            ]
            assert [status] * 3 == [each.status_code for each in answers], [each.text for each in answers]
            return [each.json() for each in answers]

        events = [each["id"] for each in await of_each("/api/v1/app/acme/msg", message, 202)]
        many = await of_each("/api/hookseal/v1/app/acme/msg", {"messages": [message]}, 202)
        events += [each["data"][0]["id"] for each in many]
        keys = [each["key"] for each in await of_each(f"{one}/secret/rotate", {"gracePeriodSeconds": 0}, 200)]

    assert (events[0], events[3], keys[0]) == (events[1], events[4], keys[1])
    assert (4, 2) == (len({*events}), len({*keys}))


async def test_a_key_is_of_one_call(client: httpx.AsyncClient, admin: Admin, installation: Installation) -> None:
    added = await admin.endpoints.add(tenant_id="acme", url=HOOK, event_types=["*"], uid="main", actor="test")
    await admin.secrets.rotate(tenant_id="acme", endpoint_id=added.endpoint_id, actor="test")
    rotation = "/api/hookseal/v1/app/acme/endpoint/main/rotation"
    assert 200 == (await client.post(f"{rotation}/end", headers=KEY)).status_code
    other = await client.post(f"{rotation}/rollback", json={}, headers=KEY)

    assert (422, ["header", "idempotency-key"]) == (other.status_code, other.json()["detail"][0]["loc"])


async def test_a_request_that_is_refused_uses_no_key(client: httpx.AsyncClient, installation: Installation) -> None:
    """So a client may correct it, and a repetition is refused in the same way."""
    taken = await client.post(PATH, json={"url": HOOK})
    for _ in range(2):
        assert 409 == (await client.post(PATH, json={"url": HOOK}, headers=KEY)).status_code
    assert 0 == await kept(installation)
    corrected = await client.post(PATH, json={"url": f"{HOOK}/2"}, headers=KEY)

    assert (201, 201) == (taken.status_code, corrected.status_code)


async def test_a_change_without_its_record_is_undone(client: httpx.AsyncClient, installation: Installation) -> None:
    """They are one transaction."""
    await installation.pool.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no record'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON hookseal.idempotency_keys FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    assert 500 == (await client.post(PATH, json={"url": HOOK}, headers=KEY)).status_code
    assert 0 == await kept(installation) == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")
    assert [] == await audited(installation.pool)


async def test_what_was_made_and_deleted_since_is_not_made_again(
    client: httpx.AsyncClient, installation: Installation
) -> None:
    made = (await client.post(PATH, json={"url": HOOK}, headers=KEY)).json()
    assert 204 == (await client.delete(f"{PATH}/{made['id']}")).status_code
    again = await client.post(PATH, json={"url": HOOK}, headers=KEY)

    assert (409, "conflict") == (again.status_code, again.json()["code"])
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


async def test_the_status_is_that_of_the_first_answer(client: httpx.AsyncClient) -> None:
    """An application that existed is 200, one that was made 201; and a task that had nothing to send has no job."""
    body: dict[str, Any] = {"name": "Acme", "uid": "acme"}
    path = "/api/v1/app?get_if_exists=true"
    for key, status in (("made", 201), ("found", 200)) * 2:
        assert status == (await client.post(path, json=body, headers={"idempotency-key": key})).status_code, key

    endpoint = (await client.post(PATH, json={"url": HOOK})).json()["id"]
    recover = f"{PATH}/{endpoint}/recover"
    since = {"since": "2020-01-01T00:00:00Z"}
    tasks = [(await client.post(recover, json=since, headers=KEY)).json() for _ in range(2)]
    assert [("acme.none", "finished")] * 2 == [(task["id"], task["status"]) for task in tasks]


async def test_nothing_of_a_request_is_kept(client: httpx.AsyncClient, installation: Installation) -> None:
    """No key, no body and no secret."""
    canaries = {"headers": {"X-Password": "hunter2"}, "secret": "whsec_" + "c2VjcmV0" * 4, "description": "a secret"}
    for number in range(2):
        endpoint = {"url": f"{HOOK}/{number}", **canaries}
        headers = {"idempotency-key": f"key-of-the-client-{number}"}
        assert 201 == (await client.post(PATH, json=endpoint, headers=headers)).status_code
    rows = await installation.pool.fetch("SELECT k::text AS text FROM hookseal.idempotency_keys AS k")

    assert 2 == len(rows)
    for row in rows:
        assert "(*,token:every," in row["text"]
        assert not any(each in row["text"] for each in ("key-of", "hunter2", "c2Vj", "a secret", "second.example"))


async def test_the_official_client_repeats_safely(url: str, installation: Installation) -> None:
    async with official("every", url) as svix:
        once = EndpointCreateOptions(idempotency_key="once")
        made = [await svix.endpoint.create("acme", EndpointIn(url=HOOK), once) for _ in range(2)]

    assert made[0] == made[1]
    assert 1 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")
