"""The hooks of svix-react, unchanged, in a page of a product on another origin, with the token of a portal.

`react/page.jsx` is that page. It is skipped where there is no Node, or npm reaches no registry.
"""

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest_asyncio
from playwright.async_api import Browser, Page
from playwright.async_api import Response as Answer
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from hookseal.api import ALL
from hookseal.api.calls import CALLS
from tests.api.alone import serving
from tests.browser.installation import Stage, verified
from tests.doubles.applications import served
from tests.interop.node_modules import installed
from tests.worker.waiting import eventually

FOLDER = Path(__file__).parent / "react"
HTML = (
    "<!doctype html><title>A product</title><link rel=icon href=data:,><div id=root></div><script src=page.js></script>"
)
CAPABILITIES = ["ViewBase", "ManageEndpoint", "ManageEndpointSecret", "CreateAttempts"]
CALLED = {
    *("endpoint.create", "endpoint.list", "endpoint.get", "endpoint.upsert", "endpoint.delete", "endpoint.recover"),
    *("endpoint.get_secret", "endpoint.rotate_secret", "endpoint.get_stats"),
    *("endpoint.get_headers", "endpoint.set_headers", "endpoint.patch_headers"),
    *("message_attempt.list_by_endpoint", "message_attempt.list_by_msg", "message_attempt.resend"),
    *("message_attempt.list_attempted_messages", "message_attempt.list_attempted_destinations"),
    *("message.list", "message.get", "event_type.list"),
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def product() -> AsyncIterator[str]:
    """Yield the address of the page of the product."""
    folder = await asyncio.to_thread(installed, FOLDER)
    process = await asyncio.create_subprocess_exec(
        *(folder / "node_modules/.bin/esbuild", "page.jsx", "--bundle", "--minify", "--jsx=automatic"),
        *('--define:process.env.NODE_ENV="production"', "--define:process={}"),  # the client of Svix looks into it
        cwd=folder,
        stdout=PIPE,
        stderr=PIPE,
    )
    script, complaints = await process.communicate()
    assert 0 == process.returncode, complaints.decode()

    async def page(_request: object) -> Response:
        return HTMLResponse(HTML)

    async def script_of_page(_request: object) -> Response:
        return Response(script, media_type="text/javascript")

    async with served(Starlette(routes=[Route("/", page), Route("/page.js", script_of_page)])) as url:
        yield url


class Hooks:
    """The page in a browser: what its hooks have, and what it has asked of the API."""

    def __init__(self, page: Page, api: str) -> None:
        self.page = page
        self.called = dict[str, set[int]]()
        self.complaints: list[str] = []
        self._api = api
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("response", self._answered)

    def _answered(self, response: Answer) -> None:
        if response.url.startswith(self._api):
            name = called(response.request.method, urlsplit(response.url).path)
            self.called.setdefault(name, set()).add(response.status)

    async def of(self, name: str, until: Callable[[Any], object] = bool) -> Any:
        """Return the data of a hook, loaded again until that is true of it."""
        section = self.page.locator(f"#{name}")

        async def look() -> Any:
            state: Mapping[str, Any] = json.loads(await section.locator("pre").inner_text())
            assert "error" not in state, state
            if not state["loading"] and "data" in state and until(state["data"]):
                return state
            if not state["loading"]:
                await section.get_by_role("button", name="Reload", exact=True).click()
            return None

        return (await eventually(look))["data"]

    async def press(self, name: str, button: str) -> None:
        await self.page.locator(f"#{name}").get_by_role("button", name=button, exact=True).click()

    async def do(self, name: str, button: str) -> None:
        """Press a button whose function must succeed, and wait for its end."""
        await self.press(name, button)
        ended = self.page.locator(f"#{name}").get_by_label(button, exact=True)
        assert "done" == await eventually(ended.inner_text)


def called(method: str, path: str) -> str:
    """Return the call that the request is; without one, the request."""
    for call in CALLS:
        if call.method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", call.path), path):
            return call.name
    return f"{method} {path}"


@asynccontextmanager
async def opened(browser: Browser, stage: Stage, product: str, tenant: str) -> AsyncIterator[Hooks]:
    """Yield the page, which has the token of a portal of this tenant. The API allows its origin."""
    made = await stage.admin.tokens.add(name=f"product-{tenant}", tenant_id="*", scopes=sorted(ALL), actor="test")
    settings = {**stage.settings, "HOOKSEAL_API_PORT": "0", "HOOKSEAL_API_ORIGINS": product}
    async with serving(settings) as (_, ready), httpx.AsyncClient(base_url=ready["url"]) as client:
        asked = await client.post(
            f"/api/v1/auth/app-portal-access/{tenant}",
            json={"capabilities": CAPABILITIES},
            headers={"authorization": f"Bearer {made.token.reveal().decode()}"},
        )
        assert 200 == asked.status_code, asked.text
        page = await browser.new_page()
        page.set_default_timeout(20_000)
        hooks = Hooks(page, ready["url"])
        given = urlencode({"token": asked.json()["token"], "app": tenant, "server": ready["url"]})
        try:
            await page.goto(f"{product}/#{given}")
            yield hooks
        finally:
            await page.close()


async def test_each_hook_works(browser: Browser, stage: Stage, product: str) -> None:
    """Each gets what it shows, each function is done, and a message reaches a receiver that verifies it."""
    tenant = stage.tenant()
    async with opened(browser, stage, product, tenant) as hooks:
        for url in (f"https://other.example/{tenant}", stage.hook(tenant)):
            # Without a chosen type it sends an empty list, which is every type.
            await hooks.page.get_by_label("URL", exact=True).fill(url)
            await hooks.page.get_by_label("Description", exact=True).fill(f"of {tenant}")
            await hooks.do("new", "Create")
            await hooks.press("new", "Only invoice.paid")
        assert [stage.hook(tenant)] == [each["url"] for each in await hooks.of("endpoints", lambda data: data)]
        await hooks.press("endpoints", "Next")
        [other] = await hooks.of(
            "endpoints", lambda data: [f"https://other.example/{tenant}"] == [each["url"] for each in data]
        )
        assert None is other["filterTypes"]
        await hooks.press("endpoints", "Previous")
        await hooks.press("endpoints", f"Open {stage.hook(tenant)}")
        endpoint = await hooks.of("endpoint")
        assert (f"of {tenant}", ["invoice.paid"]) == (endpoint["description"], endpoint["filterTypes"])
        assert {*("invoice.paid", "invoice.void")} <= {each["name"] for each in await hooks.of("event-types")}

        secret = (await hooks.of("secret"))["key"]
        event_id = await stage.publish(tenant, {"id": 7})
        assert {"id": 7} == verified(await stage.received(tenant), secret)["data"]
        [attempt] = await hooks.of("endpoint-attempts", bool)
        assert (event_id, 0) == (attempt["msgId"], attempt["status"])
        assert 1 == (await hooks.of("stats", lambda data: data["success"]))["success"]
        assert [event_id] == [each["id"] for each in await hooks.of("attempted-messages", bool)]
        assert [event_id] == [each["id"] for each in await hooks.of("messages", bool)]
        await hooks.press("messages", "Open the newest")
        assert {"id": 7} == (await hooks.of("message"))["payload"]["data"]
        assert 2 == len(await hooks.of("message-endpoints", bool))
        await hooks.do("endpoint-attempts", "Resend")
        await stage.received(tenant, 2)
        await hooks.of("message-attempts", lambda data: 2 == len([each for each in data if each["status"] == 0]))

        await hooks.do("secret", "Rotate")
        assert secret != (await hooks.of("secret", lambda data: data["key"] != secret))["key"]
        await hooks.do("headers", "Set headers")
        await hooks.do("headers", "Patch headers")
        assert ["x-a", "x-b"] == (await hooks.of("headers", lambda data: len(data["sensitive"]) == 2))["sensitive"]
        await hooks.do("endpoint", "Update")
        await hooks.of("endpoint", lambda data: data["description"] == "changed")
        await hooks.do("endpoint", "Recover")
        await hooks.do("endpoint", "Delete")

        assert [] == hooks.complaints
        assert CALLED == hooks.called.keys() - {each for each in hooks.called if each.startswith("OPTIONS")}
        assert {2} == {status // 100 for statuses in hooks.called.values() for status in statuses}
