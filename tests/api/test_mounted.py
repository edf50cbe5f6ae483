"""The API within an application of a product, under the sessions of its users."""

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from svix.api import EndpointIn, MessageIn
from svix.exceptions import HttpError

from hookseal import Admin, Publisher
from hookseal.api import ALL, Access, app
from tests.api.official import official
from tests.doubles.applications import served
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

SESSIONS = {"of-jane": ("acme", "jane@acme.example"), "of-omar": ("globex", "omar@globex.example")}


async def signed_in(request: Request) -> Access | None:
    """Return what the user of the session may do: everything for the own customer."""
    user = SESSIONS.get(request.headers.get("authorization", "").removeprefix("Bearer "))
    return None if user is None else Access(tenant_id=user[0], scopes=ALL, actor=user[1])


@pytest.mark.req("API-04")
async def test_it_is_a_part_of_an_application(admin: Admin, publisher: Publisher, installation: Installation) -> None:
    """Under its path, for the tenant and with the name of the session; the rest of the application is as before."""
    product = FastAPI()
    product.mount("/webhooks", app(admin, publisher, who=signed_in))

    @product.get("/invoices")
    async def invoices() -> list[int]:
        return [1]

    async with served(product) as url, httpx.AsyncClient(base_url=url) as browser:
        async with official("of-jane", f"{url}/webhooks") as jane, official("of-omar", f"{url}/webhooks") as omar:
            made = await jane.endpoint.create("acme", EndpointIn(url="https://a.example"))
            await jane.message.create("acme", MessageIn(event_type="a", payload={"id": 1}))
            with pytest.raises(HttpError) as caught:
                await omar.endpoint.get("acme", made.id)
        assert 404 == caught.value.status_code
        assert [1] == (await browser.get("/invoices")).json()
        unknown, nobody = await browser.get("/webhooks/x"), await browser.get("/webhooks/api/v1/app")
    assert (404, "no_such_call") == (unknown.status_code, unknown.json()["code"])
    assert 401 == nobody.status_code
    assert ["jane@acme.example"] == [row["who"] for row in await audited(installation.pool)]
