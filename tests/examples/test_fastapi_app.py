"""The example application: a customer manages webhooks over HTTP, with a real worker, PostgreSQL and Valkey."""

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import pytest
from standardwebhooks import Webhook
from svix.api import EndpointIn, MessageIn
from svix.exceptions import HttpError

from tests.api.official import official
from tests.doubles.applications import served
from tests.doubles.logbook import audited
from tests.worker import world as worlds
from tests.worker.environment import environment
from tests.worker.waiting import eventually
from tests.worker.world import World, receiving

pytestmark = pytest.mark.req("DEL-18")

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "fastapi_app"
JANE: Final = {"Authorization": "Bearer token-of-jane"}
OMAR: Final = {"Authorization": "Bearer token-of-omar"}


@pytest.fixture
async def world(
    begun_pool: "asyncpg.Pool[asyncpg.Record]",
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Return an installation on databases of its own, which the environment names."""
    for name, value in environment(database_url, redis_url).items():
        monkeypatch.setenv(name, value)
    return await worlds.world(begun_pool, database_url, redis_url, tmp_path)


class Customer:
    """A client of the application."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def request(self, method: str, path: str, *, who: dict[str, str] = JANE, **body: Any) -> tuple[int, Any]:
        """Return the status and the answer of a request."""
        async with self._session.request(method, self.url + path, headers=who, json=body or None) as response:
            return response.status, await response.json() if response.content_type == "application/json" else None


@asynccontextmanager
async def serving() -> AsyncIterator[Customer]:
    """Run the application, and yield a client of it."""
    spec = importlib.util.spec_from_file_location("example_app", EXAMPLE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with served(module.app) as url, aiohttp.ClientSession() as session:
        yield Customer(session, url)


async def refused(customer: Customer, hook: str, url: str) -> None:
    """Ask for what cannot be: without a session, for a webhook of another customer, twice, and with a wrong url."""
    for method, path in (("GET", f"{hook}/deliveries"), ("POST", f"{hook}/rotate"), ("DELETE", hook)):
        assert 404 == (await customer.request(method, path, who=OMAR))[0]
    assert {"webhooks": []} == (await customer.request("GET", "/webhooks", who=OMAR))[1]
    assert 401 == (await customer.request("GET", "/webhooks", who={}))[0]
    status, answer = await customer.request("POST", "/webhooks", url=url)
    assert (409, "url") == (status, answer["field"])
    assert 422 == (await customer.request("POST", "/webhooks", url="ftp://a.example"))[0]


async def test_a_customer_manages_webhooks(world: World) -> None:
    """A customer adds an endpoint, gets a verified event, sees it, rotates the secret, and sees nothing of others."""
    async with serving() as customer, receiving() as receiver, world.worker():
        status, added = await customer.request("POST", "/webhooks", url=f"{receiver.base_url}/hooks")
        assert 201 == status
        hook = f"/webhooks/{added['endpoint_id']}"
        assert (200, True) == ((tested := await customer.request("POST", f"{hook}/test"))[0], tested[1]["delivered"])
        assert [200, 409] == [(await customer.request("POST", "/invoices/1/paid"))[0] for _ in range(2)]
        first = await receiver.wait_for(2)
        Webhook(added["secret"]).verify(first.body, first.headers)

        async def delivered() -> list[Any] | None:
            _, page = await customer.request("GET", f"{hook}/deliveries")
            return page["deliveries"] if page["deliveries"][0]["state"] == "delivered" else None

        [delivery] = await eventually(delivered)
        _, shown = await customer.request("GET", f"/deliveries/{delivery['delivery_id']}")
        assert [204] == [attempt["status"] for attempt in shown["attempts"]]

        _, rotated = await customer.request("POST", f"{hook}/rotate")
        assert rotated["both_until"] is not None
        await customer.request("POST", "/invoices/2/paid")
        second = await receiver.wait_for(3)
        for secret in (rotated["secret"], added["secret"]):
            Webhook(secret).verify(second.body, second.headers)

        await refused(customer, hook, f"{receiver.base_url}/hooks")
        assert 204 == (await customer.request("DELETE", hook))[0]

    activities = await world.pool.fetch("SELECT text FROM activity")
    assert [f"jane@acme.example added {receiver.base_url}/hooks"] == [row["text"] for row in activities]
    actions = [row["action"] for row in await audited(world.pool) if row["who"] == "jane@acme.example"]
    assert ["endpoint.added", "endpoint.tested", "secret.rotated", "endpoint.deleted"] == actions, await audited(
        world.pool
    )


@pytest.mark.req("API-02", part="python")
async def test_a_client_of_svix_manages_the_own_tenant(world: World) -> None:
    """The session of a user opens the API for the own tenant, without publishing; the audit log has the user."""
    async with serving() as customer, receiving() as receiver, world.worker():
        where = f"{customer.url}/svix"
        async with official("token-of-jane", where) as jane, official("token-of-omar", where) as omar:
            made = await jane.endpoint.create("acme", EndpointIn(url=f"{receiver.base_url}/hooks"))
            _, page = await customer.request("GET", "/webhooks")
            assert made.id in [webhook["endpoint_id"] for webhook in page["webhooks"]]
            secret = (await jane.endpoint.get_secret("acme", made.id)).key
            assert 200 == (await customer.request("POST", "/invoices/1/paid"))[0]
            request = await receiver.wait_for(1)
            Webhook(secret).verify(request.body, request.headers)
            message = await jane.message.get("acme", "customer-invoice-1-paid")
            assert "invoice.paid" == message.event_type
            for refused_call, expected in (
                (jane.message.create("acme", MessageIn(event_type="a", payload={})), 403),
                (omar.endpoint.get("acme", made.id), 404),
            ):
                with pytest.raises(HttpError) as caught:
                    await refused_call
                assert expected == caught.value.status_code
        assert 401 == (await customer.request("GET", "/svix/api/v1/app/acme/endpoint", who={}))[0]

    actions = {row["action"] for row in await audited(world.pool) if row["who"] == "jane@acme.example"}
    assert {"endpoint.added", "secret.revealed"} <= actions
