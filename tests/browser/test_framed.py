"""In a frame of the product, on another site, in a browser that blocks third-party cookies; and of nobody else."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext

import pytest_asyncio
from playwright.async_api import Browser, Frame, async_playwright, expect

from tests.api.alone import serving as serving_api
from tests.browser.installation import Stage, free_port
from tests.browser.visiting import visiting
from tests.doubles.client_certificates import Authority, serving
from tools.browser import chromium

STORY = "framed"
_CHUNK = 65_536


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def strict() -> AsyncIterator[Browser]:
    """Yield a Chromium that sends no cookie of another site, but those of a partition."""
    options = ["--test-third-party-cookie-phaseout", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=options)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def encrypted(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: SSLContext, port: int
) -> AsyncIterator[None]:
    """Serve over TLS on this port."""
    server = await asyncio.start_server(answer, "127.0.0.1", port, ssl=tls)
    try:
        yield
    finally:
        server.close()


def passed_on(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return what passes a connection on to this port, as a proxy before `hookseal api` does."""

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                target.write(data)
                await target.drain()
        target.close()

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, downstream), copy(upstream, writer))

    return both


def framing(link: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return what serves a page of the product, with these pages in a frame, which becomes as high as they say."""
    script = (
        "addEventListener('message', said => { if (said.origin === new URL(document.querySelector('iframe').src).origin"
        " && said.data.height) document.querySelector('iframe').style.height = `${said.data.height}px` })"
    )
    frame = f'<iframe src="{link}" width="900" height="100"></iframe>'
    html = f"<!doctype html><title>Product</title>{frame}<script>{script}</script>"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(html)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + html.encode())
        await writer.drain()
        writer.close()

    return answer


async def test_a_customer_works_in_a_frame_of_the_product(strict: Browser, stage: Stage, tmp_path: Path) -> None:
    """The session is kept by a cookie of the partition; the frame grows; another site cannot frame the pages."""
    tls = serving(Authority().server(), tmp_path)
    api, pages, product, evil = free_port(), free_port(), free_port(), free_port()
    settings = {
        **stage.settings,
        "HOOKSEAL_API_PORT": str(api),
        "HOOKSEAL_PORTAL_URL": f"https://127.0.0.1:{pages}/portal",
        "HOOKSEAL_PORTAL_FRAMES": f"https://localhost:{product}",
    }
    tenant = stage.tenant()

    async def link() -> str:
        access = await stage.admin.portal.add(tenant_id=tenant, user="jane", actor="test")
        return f"https://127.0.0.1:{pages}/portal/login?code={access.code.reveal().decode()}"

    async with (
        serving_api(settings),
        encrypted(passed_on(api), tls, pages),
        encrypted(framing(await link()), tls, product),
        encrypted(framing(await link()), tls, evil),
        visiting(strict, f"https://127.0.0.1:{pages}/portal", STORY, ignore_https_errors=True) as visit,
    ):
        await visit.page.goto(f"https://localhost:{product}/")
        framed = visit.page.frame_locator("iframe")
        await framed.get_by_role("button", name="Open").click()
        await framed.get_by_role("link", name="Add an endpoint").click()
        await framed.get_by_label("URL", exact=True).fill(stage.hook(tenant))
        await framed.get_by_role("button", name="Add").click()
        await expect(framed.get_by_role("heading", level=1)).to_have_text(stage.hook(tenant))
        height = await visit.page.locator("iframe").evaluate("it => it.offsetHeight")
        assert 400 < height
        cookies = await visit.page.context.cookies(f"https://127.0.0.1:{pages}")
        assert all(cookie["secure"] and cookie["httpOnly"] for cookie in cookies)

        assert [] == visit.complaints
        await visit.page.goto(f"https://localhost:{evil}/")
        frame = visit.page.main_frame.child_frames[0]
        assert not await says(frame, "Open")
        assert any("frame-ancestors" in each for each in visit.complaints)
        visit.complaints.clear()
    [endpoint] = (await stage.admin.endpoints.list(tenant_id=tenant)).items
    assert stage.hook(tenant) == endpoint.url


async def says(frame: Frame, button: str) -> bool:
    """Return whether the frame shows this button."""
    with suppress(Exception):
        return bool(await frame.get_by_role("button", name=button).count())
    return False
