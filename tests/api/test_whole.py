"""The whole way: the official client, `hookseal api`, a worker, and a receiver that verifies as Svix says."""

import json
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from svix import Webhook
from svix.api import (
    ApplicationIn,
    AppPortalAccessIn,
    EndpointHeadersIn,
    EndpointIn,
    EndpointPatch,
    EndpointSecretRotateIn,
    MessageIn,
    OperationalWebhookEndpointIn,
    RecoverIn,
)

from hookseal import Admin
from hookseal.admin import ScopeName
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from tests.api.alone import serving
from tests.api.official import official
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.client_certificates import serving as with_certificate
from tests.doubles.logins import login
from tests.doubles.receivers import listening
from tests.doubles.receivers import status as answering
from tests.worker import world as worlds
from tests.worker.environment import environment
from tests.worker.waiting import eventually
from tests.worker.world import Received, World, receiving, status

pytestmark = pytest.mark.req("API-02", part="python")

ALL: tuple[ScopeName, ...] = ("read", "publish", "manage", "operate", "reveal")


@pytest.fixture
async def world(begun_pool: "asyncpg.Pool[asyncpg.Record]", database_url: str, redis_url: str, tmp_path: Path) -> World:
    """Return an installation on databases of its own."""
    return await worlds.world(begun_pool, database_url, redis_url, tmp_path)


def verified(got: Received, *secrets: str) -> Any:
    """Return the payload, verified with each of these secrets."""
    for secret in secrets:
        Webhook(secret).verify(got.body, got.headers)
    return json.loads(got.body)


@pytest.mark.req("DEL-21", part="svix")
async def test_new_endpoints_sign_with_the_names_of_svix(world: World) -> None:
    """If the setting says so, both an endpoint of a tenant and one for the events of the installation."""
    settings = environment(world.database_url, world.redis_url) | {"HOOKSEAL_API_SCHEME": "svix"}
    async with Admin.connect(environ=settings) as admin:
        token = await admin.tokens.add(name="product", tenant_id="*", scopes=ALL, actor="test")
    async with (
        receiving() as receiver,
        world.worker(),
        serving(settings) as (_, ready),
        official(token.token.reveal().decode(), ready["url"]) as svix,
    ):
        operational = svix.operational_webhook.endpoint
        made = await operational.create(OperationalWebhookEndpointIn(url=f"{receiver.base_url}/ops"))
        await svix.endpoint.create("acme", EndpointIn(url=f"{receiver.base_url}/hook", uid="main"))
        secrets = [(await svix.endpoint.get_secret("acme", "main")).key, (await operational.get_secret(made.id)).key]
        await svix.message.create("acme", MessageIn(event_type="invoice.paid", payload={"id": 1}))
        message = await receiver.wait_for(1)
        await svix.endpoint.patch("acme", "main", EndpointPatch(disabled=True))
        event = await receiver.wait_for(2)

    assert {"id": 1} == verified(message, secrets[0])
    sent = verified(event, secrets[1])
    assert ("endpoint.disabled", "acme") == (sent["type"], sent["data"]["tenant_id"])
    for got in (message, event):
        names = {name for name in got.headers if name.startswith(("svix-", "webhook-"))}
        assert {"svix-id", "svix-timestamp", "svix-signature"} == names


async def test_a_message_reaches_a_receiver_that_verifies_it(world: World) -> None:
    """From the token to the delivery: rotated, failed and recovered, with the payload byte for byte as it was given.

    The process of the API has the role that is made for it, the one that may reveal, and a grant to publish.
    """
    settings = environment(world.database_url, world.redis_url)
    async with (
        login(world.pool, world.database_url, "hookseal_api", "hookseal_reveal") as (role, of_role),
        Admin.connect(environ=settings) as admin,
    ):
        token = await admin.tokens.add(name="product", tenant_id="*", scopes=ALL, actor="test")
        await admin.producers.grant(role=role, tenant_id="*", actor="test")
        await through(world, settings, of_role, token.token.reveal().decode())


async def through(world: World, settings: dict[str, str], of_role: str, token: str) -> None:
    """Send messages through a worker and an API with this login, and verify them."""
    async with (
        receiving() as receiver,
        world.worker(),
        serving(settings | {"DATABASE_URL": of_role}) as (_, ready),
        official(token, ready["url"]) as svix,
    ):
        await svix.application.create(ApplicationIn(name="Acme", uid="acme"))
        endpoint = await svix.endpoint.create("acme", EndpointIn(url=f"{receiver.base_url}/hook", uid="main"))
        await svix.endpoint.set_headers("acme", "main", EndpointHeadersIn(headers={"X-Team": "billing"}))
        secret = (await svix.endpoint.get_secret("acme", "main")).key

        payload = {"price": 1.10, "big": 10**20, "text": "é"}
        made = await svix.message.create("acme", MessageIn(event_type="invoice.paid", payload=payload))
        first = await receiver.wait_for(1)
        assert payload == verified(first, secret)
        assert "billing" == first.headers["x-team"]
        assert first.body == json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()

        async def attempted() -> bool:
            return bool((await svix.message_attempt.list_by_msg("acme", made.id)).data)

        await eventually(attempted)
        [attempt] = (await svix.message_attempt.list_by_endpoint("acme", "main")).data
        assert (made.id, endpoint.id, 204, endpoint.url, "success") == (
            *(attempt.msg_id, attempt.endpoint_id, attempt.response_status_code, attempt.url),
            attempt.status_text.value,
        )

        rotated = (await svix.endpoint.rotate_secret("acme", "main", EndpointSecretRotateIn())).key
        await svix.message.create("acme", MessageIn(event_type="invoice.paid", payload=payload))
        assert payload == verified(await receiver.wait_for(2), secret, rotated)

        receiver.answers["/hook"] = status(410)  # gone: the delivery fails, and the endpoint is disabled
        await svix.message.create("acme", MessageIn(event_type="invoice.paid", event_id="lost", payload={"id": 3}))
        await receiver.wait_for(3)

        async def disabled() -> bool:
            return bool((await svix.endpoint.get("acme", "main")).disabled)

        await eventually(disabled)
        del receiver.answers["/hook"]
        await svix.endpoint.patch("acme", endpoint.id, EndpointPatch(disabled=False))
        task = await svix.endpoint.recover("acme", "main", RecoverIn(since=made.timestamp - timedelta(hours=1)))

        async def sent() -> dict[str, Any] | None:
            found = await svix.background_task.get(task.id)
            return found.data if found.status.value == "finished" else None

        assert {"messagesSent": 1} == await eventually(sent)
        assert {"id": 3} == verified(await receiver.wait_for(4), rotated)
        assert [task.id] == [each.id for each in (await svix.background_task.list()).data]
        await svix.message_attempt.resend("acme", "lost", endpoint.id)
        assert {"id": 3} == verified(await receiver.wait_for(5), rotated)


AUTHORITY = Authority()


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.req("DEL-13", part="client-keys")
async def test_a_customer_who_may_not_reveal_gets_no_header_at_an_address_of_their_choice(
    world: World, tmp_path: Path
) -> None:
    """With the token of a portal: neither the sealed headers nor the client certificate follow the url, at any step.

    A token that may reveal takes them along.
    """
    settings = environment(world.database_url, world.redis_url)
    certificate = with_certificate(AUTHORITY.server(), tmp_path)
    certificate.verify_mode, asked = ssl.CERT_OPTIONAL, AUTHORITY.pem.decode()
    certificate.load_verify_locations(cadata=asked)
    async with Admin.connect(environ=settings) as admin:
        product = await admin.tokens.add(name="product", tenant_id="*", scopes=ALL, actor="test")
    async with (
        receiving() as mine,
        receiving() as theirs,
        listening(answering(204), tls=certificate) as my_tls,
        listening(answering(204), tls=certificate) as their_tls,
        world.worker(),
        serving(settings) as (_, ready),
        official(product.token.reveal().decode(), ready["url"]) as svix,
    ):
        of: dict[str, Any] = {"tenant_id": TenantId("acme"), "event_types": ("*",)}
        plain = NewEndpoint(**of, url=f"{mine.base_url}/hook", settings={"uid": "plain"})
        await world.installation.add(plain, headers={"x-api-key": b"Zq7-canary"})
        tls = NewEndpoint(**of, url=my_tls.url, settings={"uid": "tls", "timeout_ms": 15_000})
        await world.installation.add(tls, tls=identity(AUTHORITY.client("ours"), AUTHORITY))
        await world.delivered(*await world.publish())
        assert ("Zq7-canary", ["ours"]) == ((await mine.wait_for(1)).headers["x-api-key"], my_tls.clients)

        portal = (await svix.authentication.app_portal_access("acme", AppPortalAccessIn())).token
        headers = {"authorization": f"Bearer {portal}"}
        async with httpx.AsyncClient(base_url=f"{ready['url']}/api/v1/app/acme/endpoint", headers=headers) as customer:
            steps: list[tuple[str, str, dict[str, Any], str | None]] = [
                ("PATCH", "/plain", {"url": f"{mine.base_url}/other", "disabled": True}, None),
                ("PATCH", "/plain", {"description": "mine", "disabled": False}, None),
                ("PUT", "/plain", {"url": f"{theirs.base_url}/hook"}, "headers.x-api-key"),
                ("PATCH", "/tls", {"url": their_tls.url}, "client_cert"),
            ]
            for method, path, body, dropped in steps:
                answer = await customer.request(method, path, json=body)
                assert (200, dropped) == (answer.status_code, answer.headers.get("hookseal-dropped")), answer.text
        await world.delivered(*await world.publish())
        assert "x-api-key" not in (await theirs.wait_for(1)).headers
        assert ([None], 1) == (their_tls.clients, len(my_tls.requests))

        await svix.endpoint.set_headers("acme", "plain", EndpointHeadersIn(headers={"X-Api-Key": "Zq7-canary"}))
        await svix.endpoint.patch("acme", "plain", EndpointPatch(url=f"{mine.base_url}/back"))
        await world.delivered(*await world.publish())
        assert "Zq7-canary" == (await mine.wait_for(2)).headers["x-api-key"]
