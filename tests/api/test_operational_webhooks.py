"""Operational webhooks, with the official client: the endpoints of the tenant `_operator`."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from svix.api import (
    EndpointIn,
    OperationalWebhookEndpointHeadersIn,
    OperationalWebhookEndpointIn,
    OperationalWebhookEndpointSecretIn,
    SvixAsync,
)
from svix.api.operational_webhook_endpoint import (
    OperationalWebhookEndpointCreateOptions,
    OperationalWebhookEndpointListOptions,
    OperationalWebhookEndpointRotateSecretOptions,
)
from svix.exceptions import HttpError
from svix.models import OperationalWebhookEndpointUpsertIn, Ordering

from hookseal import Admin
from hookseal.api.calls import CALLS
from tests.api.official import official
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

PATH = "/api/v1/operational-webhook/endpoint"
URL = "https://ops.example/hook"


@pytest.fixture
async def svix(url: str) -> AsyncIterator[SvixAsync]:
    """Yield the official client, which may do everything."""
    async with official("every", url) as client:
        yield client


@pytest.mark.req("API-02", part="python")
async def test_the_official_client_manages_operational_webhooks(
    svix: SvixAsync, admin: Admin, installation: Installation
) -> None:
    calls = svix.operational_webhook.endpoint
    types = ["endpoint.disabled", "message.attempt.exhausted"]
    once = OperationalWebhookEndpointCreateOptions(idempotency_key="once")
    given = OperationalWebhookEndpointIn(
        url=URL,
        uid="ops",
        description="ours",
        event_types=types,
        throttle_rate=7,
        metadata={"team": "ops"},
        headers={"X-Team": "ops"},
    )
    made = await calls.create(given, once)
    assert made == await calls.create(given, once)
    assert (URL, "ops", "ours", types, 7, {"team": "ops"}) == (
        *(made.url, made.uid, made.description, made.event_types, made.throttle_rate, made.metadata),
    )
    assert "_operator" == (await admin.endpoints.list(tenant_id="*")).items[0].tenant_id
    second = await calls.create(OperationalWebhookEndpointIn(url=f"{URL}/2"))
    options = OperationalWebhookEndpointListOptions(limit=1, order=Ordering.ASCENDING)
    page = await calls.list(options)
    assert ([made.id], False) == ([each.id for each in page.data], page.done)
    options.iterator = page.iterator
    assert [second.id] == [each.id for each in (await calls.list(options)).data]
    assert made == await calls.get("ops") == await calls.get(made.id)

    await calls.set_headers("ops", OperationalWebhookEndpointHeadersIn(headers={"X-Other": "1"}))
    headers = await calls.get_headers("ops")
    assert ({}, ["x-other"]) == (headers.headers, headers.sensitive)
    old = (await calls.get_secret("ops")).key
    once_more = OperationalWebhookEndpointRotateSecretOptions(idempotency_key="once")
    for _ in range(2):  # the client returns nothing of it
        await calls.rotate_secret("ops", OperationalWebhookEndpointSecretIn(), once_more)
    assert old != (await calls.get_secret("ops")).key
    changed = await calls.upsert("ops", OperationalWebhookEndpointUpsertIn(url=URL, disabled=True))
    assert (made.id, True, None) == (changed.id, changed.disabled, changed.event_types)
    await calls.delete("ops")
    with pytest.raises(HttpError) as caught:
        await calls.get("ops")
    assert (404, "not_found") == (caught.value.status_code, caught.value.code)

    audit = await audited(installation.pool, "_operator")
    assert 1 == [row["action"] for row in audit].count("secret.rotated")
    assert {"token:every"} == {row["who"] for row in audit}


@pytest.mark.req("API-04")
async def test_they_are_apart_from_the_endpoints_of_tenants(svix: SvixAsync, url: str) -> None:
    """A token of a tenant may ask for none of them, and no path of a tenant leads to them, nor the other way round."""
    made = await svix.operational_webhook.endpoint.create(OperationalWebhookEndpointIn(url=URL))
    theirs = await svix.endpoint.create("acme", EndpointIn(url=URL))
    ours = [call for call in CALLS if call.path.startswith(PATH)]
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer acme"}) as client:
        for call in ours:
            body: dict[str, Any] = {"url": URL} if call.name.endswith((".create", ".upsert")) else {"headers": {}}
            response = await client.request(call.method, call.path.format(endpoint_id=made.id), json=body)
            assert (403, "insufficient_access") == (response.status_code, response.json()["code"]), call.name
        for tenant in ("acme", "_operator"):
            assert 404 == (await client.get(f"/api/v1/app/{tenant}/endpoint/{made.id}")).status_code
    assert 9 == len(ours)
    assert [made.id] == [each.id for each in (await svix.operational_webhook.endpoint.list()).data]
    with pytest.raises(HttpError) as caught:
        await svix.operational_webhook.endpoint.get(theirs.id)
    assert 404 == caught.value.status_code


@pytest.mark.req("API-07")
async def test_their_events_have_no_channels(client: httpx.AsyncClient) -> None:
    """An endpoint with channels would get nothing. Svix has neither this member nor other methods here."""
    refused = await client.post(PATH, json={"url": URL, "channels": ["a"]})
    assert (422, ["body", "channels"]) == (refused.status_code, refused.json()["detail"][0]["loc"])
    assert 405 == (await client.patch(f"{PATH}/main", json={})).status_code
