"""Mounted in a product under its own session: no second login, and the audit log has the product's user."""

import asyncio
import contextlib
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.installation import Stage
from tests.browser.visiting import Visit, visiting
from tests.doubles.applications import served

STORY = "mounted"
MOUNTED_AT = "/settings/webhooks"
EXAMPLES = Path(__file__).parents[2] / "examples"
_SECONDS = 60.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def products(stage: Stage) -> AsyncIterator[Mapping[str, str]]:
    """Yield the address of each product, by its name."""
    async with AsyncExitStack() as running:
        yield {name: await running.enter_async_context(served_by_uvicorn(name, stage)) for name in PRODUCTS}


@asynccontextmanager
async def served_by_uvicorn(name: str, stage: Stage) -> AsyncIterator[str]:
    """Run the example as its page says, and yield its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES / name), "app:app", "--port", "0"),
        env={**os.environ, **stage.settings},
        stdout=DEVNULL,
        stderr=PIPE,
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(_SECONDS):
            async for line in process.stderr:
                lines.append(line.decode())
                if found := re.search(r"running on (http://[0-9.:]+)", lines[-1]):
                    break
            else:
                pytest.fail("".join(lines))
        rest = asyncio.create_task(process.stderr.read())  # a full pipe would stop it
        yield found[1]
        process.terminate()
        await rest
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


async def signed_in(visit: Visit, field: str, name: str) -> None:
    """Sign in to the product, and follow its link to the pages."""
    await visit.open("/")
    await visit.fill(field, name)
    await visit.press("Sign in")
    await visit.follow("Webhooks")


PRODUCTS = {
    "fastapi_app": ("Token", "token-of-jane", "token-of-omar", "jane@acme.example"),
    "django_app": ("User", "jane", "omar", "jane"),
}


@pytest.mark.parametrize("name", PRODUCTS)
async def test_a_customer_of_a_product_adds_an_endpoint(
    name: str, browser: Browser, stage: Stage, with_javascript: bool, products: Mapping[str, str]
) -> None:
    """Under the path of the product, with its session; somebody else's customer does not see it, and nobody without."""
    field, jane, omar, actor = PRODUCTS[name]
    url = f"{stage.receiver.base_url}/{name}-{with_javascript}"
    async with visiting(
        browser, products[name], STORY, policed=MOUNTED_AT, java_script_enabled=with_javascript
    ) as visit:
        await signed_in(visit, field, jane)
        assert "/settings/webhooks/" == visit.path
        await visit.follow("Add an endpoint")
        await visit.fill("URL", url)
        await visit.press("Add")
        await visit.follow("Overview")
        assert url == await visit.heading()
        assert visit.path.startswith("/settings/webhooks/endpoint/")
        added = visit.path.partition("?")[0]
        await visit.press("Disable")
        assert "The endpoint is disabled" in await visit.text()
        if with_javascript:
            await visit.check(STORY)
        await visit.follow("Back")
        assert "/" == visit.path
    async with visiting(browser, products[name], STORY, policed=MOUNTED_AT) as other:
        await signed_in(other, field, omar)
        assert url not in await other.text()
        answer = await other.open(added)
        assert answer is not None
        assert 404 == answer.status
    async with visiting(browser, products[name], STORY, policed=MOUNTED_AT) as nobody:
        answer = await nobody.open(added)
        assert answer is not None
        assert 401 == answer.status
        await nobody.follow("Back to the product")
        assert "/" == nobody.path
    page = await stage.admin.audit.list(tenant_id="acme", limit=2)
    assert ["endpoint.disabled", "endpoint.added"] == [row.action for row in page.items]
    assert all(row.actor.partition("/")[2] == actor for row in page.items)


async def test_a_form_of_another_site_changes_nothing(
    browser: Browser, stage: Stage, products: Mapping[str, str]
) -> None:
    """The visitor is signed in, and the form is complete but for its token: 403, and the endpoint is as it was."""
    added = await stage.admin.endpoints.add(
        tenant_id="acme", url=f"{stage.receiver.base_url}/forged", event_types=["*"], actor="test"
    )

    async def attack(scope: dict[str, object], receive: object, send: object) -> None:
        """Serve a page that sends the form by itself."""
        if scope["type"] != "http":
            return
        html = f'<body onload="document.forms[0].submit()"><form method="post" action="{target}"></form>'
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
        await send(start)  # type: ignore[operator]
        await send({"type": "http.response.body", "body": html.encode()})  # type: ignore[operator]

    url = products["fastapi_app"]
    target = f"{url}{MOUNTED_AT}/endpoint/{added.endpoint_id}/delete"
    async with served(attack) as elsewhere, visiting(browser, url, STORY, policed=MOUNTED_AT) as visit:
        await signed_in(visit, "Token", "token-of-jane")
        async with visit.page.expect_response(target) as answered:
            await visit.page.goto(elsewhere)
        answer = await answered.value
        assert 403 == answer.status
    assert "forged" in (await stage.admin.endpoints.get(tenant_id="acme", endpoint_id=added.endpoint_id)).url
