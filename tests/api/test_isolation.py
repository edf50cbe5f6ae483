"""No token of a tenant shows, changes or betrays anything of another."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from hookseal import Admin
from hookseal.api.call import Call
from hookseal.api.calls import CALLS
from hookseal.postgres.pool import Pool
from tests import rows
from tests.doubles.stored import Installation
from tests.operations.test_replay_jobs import dead_letters, started

pytestmark = pytest.mark.req("API-04")

# What a call needs so that it would be done if the tenant were another one.
BODIES: dict[str, dict[str, Any]] = {
    "message.create": {"eventType": "a", "payload": {}},
    "endpoint.create": {"url": "https://new.example"},
    "endpoint.upsert": {"url": "https://new.example"},
    "endpoint.patch": {"description": "mine now"},
    "endpoint.rotate_secret": {},
    "endpoint.set_headers": {"headers": {"X-A": "1"}},
    "endpoint.patch_headers": {"headers": {"X-A": "1"}},
    "endpoint.send_example": {"eventType": "a", "payload": {}},
    "hookseal.roll_back": {},
    "hookseal.probe": {},
    "hookseal.settings.patch": {"concurrency": 1},
    "hookseal.endpoint.create": {"url": "https://new.example"},
    "hookseal.message.create_many": {"messages": [{"eventType": "a", "payload": {}}]},
    "hookseal.replay.start": {},
    "endpoint.recover": {"since": "2020-01-01T00:00:00Z"},
    "application.upsert": {"name": "mine"},
    "application.patch": {"name": "mine"},
    "application.create": {"name": "mine"},
    "event_type.create": {"name": "mine", "description": "mine"},
    "event_type.upsert": {"description": "mine"},
    "event_type.patch": {"description": "mine"},
    "hookseal.token.create": {"name": "mine", "tenantId": "acme", "scopes": ["read"]},
    "authentication.app_portal_access": {},
    "authentication.expire_all": {},
    "operational_webhook.endpoint.create": {"url": "https://operator.example"},
    "operational_webhook.endpoint.upsert": {"url": "https://operator.example"},
    "operational_webhook.endpoint.rotate_secret": {},
    "operational_webhook.endpoint.set_headers": {"headers": {"X-A": "1"}},
}
NOWHERE = {
    "endpoint_id": "0193b0c0-0000-7000-8000-000000000000",
    "msg_id": "no-such-message",
    "task_id": "acme.0193b0c0-0000-7000-8000-000000000000",
    "attempt_id": "0193b0c0-0000-7000-8000-000000000000.1",
    "delivery_id": "0193b0c0-0000-7000-8000-000000000000",
}
OF_A_TENANT = [call for call in CALLS if call.scopes and not call.path.startswith("/api/v1/event-type")]


@pytest.fixture
async def theirs(installation: Installation, admin: Admin, client: httpx.AsyncClient) -> dict[str, str]:
    """Give acme one of everything, and return the ids."""
    endpoint = {"url": "https://a.example", "uid": "main", "headers": {"X-Secret": "hunter2"}}
    made = (await client.post("/api/v1/app/acme/endpoint", json=endpoint)).json()
    message = {"eventType": "a", "eventId": "secret-event", "payload": {"secret": "hunter2"}}
    assert 202 == (await client.post("/api/v1/app/acme/msg", json=message)).status_code
    await dead_letters(installation, 1)
    job = await started(installation)
    delivery = (await admin.deliveries.list(tenant_id="acme", event_id="secret-event")).items[0].delivery_id
    await rows.attempt(installation.pool, delivery)
    return {
        "attempt_id": f"{delivery}.1",
        "delivery_id": delivery,
        "endpoint_id": made["id"],
        "msg_id": "secret-event",
        "task_id": f"acme.{job.replay_id}",
    }


@pytest.fixture
async def intruder(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of globex, which may do everything there."""
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer globex"}) as client:
        yield client


async def asked(client: httpx.AsyncClient, call: Call, names: dict[str, str]) -> tuple[int, bytes]:
    """Return the answer to a call with these names in its path."""
    path = call.path
    for name, value in names.items():
        path = path.replace("{" + name + "}", value)
    response = await client.request(call.method, path, json=BODIES.get(call.name))
    return response.status_code, response.content


async def state(pool: Pool) -> str:
    """Return what acme has, as text."""
    return str(
        await pool.fetchval(
            """
            SELECT concat((SELECT array_agg(e ORDER BY e.id) FROM hookseal.endpoints AS e WHERE tenant_id = 'acme'),
                          (SELECT array_agg(v ORDER BY v.id) FROM hookseal.events AS v WHERE tenant_id = 'acme'),
                          (SELECT array_agg(t) FROM hookseal.tenants AS t WHERE tenant_id = 'acme'),
                          (SELECT array_agg(r ORDER BY r.id) FROM hookseal.replays AS r WHERE tenant_id = 'acme'),
                          (SELECT count(*) FROM hookseal.audit_log WHERE tenant_id = 'acme'))
            """
        )
    )


@pytest.mark.parametrize("tenant", ["acme", "globex"])
@pytest.mark.parametrize("by_uid", [False, True])
async def test_a_token_of_another_tenant_is_answered_as_if_nothing_was_there(
    tenant: str, by_uid: bool, theirs: dict[str, str], intruder: httpx.AsyncClient, installation: Installation
) -> None:
    """In the path of that tenant, and with its ids in the path of its own: each answer is the one for nothing."""
    before = await state(installation.pool)
    there = theirs | ({"endpoint_id": "main"} if by_uid else {})
    nowhere = NOWHERE | ({"endpoint_id": "none"} if by_uid else {})
    for call in (call for call in OF_A_TENANT if "_id}" in call.path and not call.of_every_tenant):
        if tenant == "globex" and (call.path.endswith("{app_id}") or "_id}" not in call.path.replace("{app_id}", "")):
            continue  # their own
        if by_uid and call.name == "endpoint.upsert":
            continue  # makes an endpoint with this uid for globex, which the next test shows
        found = await asked(intruder, call, there | {"app_id": tenant})
        assert found == await asked(intruder, call, nowhere | {"app_id": tenant}), call.name
        assert 404 == found[0], call.name
    assert before == await state(installation.pool)


async def test_lists_have_nothing_of_another_tenant(
    theirs: dict[str, str], intruder: httpx.AsyncClient, installation: Installation
) -> None:
    for call in (call for call in OF_A_TENANT if call.name.endswith(".list") and not call.of_every_tenant):
        status, content = await asked(intruder, call, {"app_id": "globex"} | theirs)
        assert (200, True) == (status, b'"data":[]' in content), call.name
    for iterator in (theirs["endpoint_id"], f"-{theirs['endpoint_id']}"):
        response = await intruder.get("/api/v1/app/globex/endpoint", params={"iterator": iterator})
        assert [] == response.json()["data"]


async def test_what_concerns_every_tenant_is_refused(
    theirs: dict[str, str], intruder: httpx.AsyncClient, installation: Installation
) -> None:
    before = await state(installation.pool)
    for call in (call for call in CALLS if call.of_every_tenant):
        status, _ = await asked(intruder, call, {"app_id": "acme", "event_type_name": "a"})
        assert 403 == status, call.name
    assert before == await state(installation.pool)


async def test_names_of_one_tenant_are_free_in_another(
    theirs: dict[str, str], intruder: httpx.AsyncClient, installation: Installation
) -> None:
    """The same uid, url, event id and key are other objects there, and show nothing of the first."""
    before = await state(installation.pool)
    endpoint = {"url": "https://a.example", "uid": "main"}
    made = await intruder.put("/api/v1/app/globex/endpoint/main", json=endpoint)
    message = {"eventType": "b", "eventId": "secret-event", "payload": {"mine": 1}}
    published = await intruder.post("/api/v1/app/globex/msg", json=message)
    read = await intruder.get("/api/v1/app/globex/msg/secret-event")

    assert (201, 202) == (made.status_code, published.status_code)
    assert theirs["endpoint_id"] != made.json()["id"]
    assert {"mine": 1} == read.json()["payload"]
    assert before == await state(installation.pool)


@pytest.mark.parametrize("name", ["*", "_operator", "_system", "%2A", "acme%00", "..", "a" * 64, "é"])
async def test_no_name_means_several_tenants(name: str, client: httpx.AsyncClient) -> None:
    """Also a token for every tenant names one of them in a path; the reserved ones are none."""
    assert 404 == (await client.get(f"/api/v1/app/{name}/endpoint")).status_code
    assert 404 == (await client.get(f"/api/v1/app/{name}")).status_code
