"""The pages in a real Chromium, served by `hookseal api` beside a real worker, PostgreSQL, Valkey and receiver.

`make pages` runs these tests, and `make test` does not: they need Playwright and Chromium. All of them share one
browser, one installation and one event loop; each has a tenant and a browser context of its own.
"""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.installation import Stage, staged
from tests.browser.visiting import COUNTS
from tests.servers import Servers
from tools.browser import REPORT, chromium

_TURN = pytest.mark.asyncio(loop_scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every test in the event loop of the browser."""
    for item in items:
        item.add_marker(_TURN, append=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write how many pages were checked, and what was found, for `tools/browser.py`."""
    file = session.config.rootpath / REPORT
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({name: asdict(counts) for name, counts in sorted(COUNTS.items())}), encoding="utf-8")


@pytest.fixture(scope="session")
def shots(pytestconfig: pytest.Config) -> Path:
    """Return the folder for screenshots."""
    folder = pytestconfig.rootpath / ".reports" / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Yield the Chromium of this machine."""
    path = chromium()
    assert path is not None, "there is no Chromium: `make pages` installs it if it may"
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=options)
        try:
            yield browser
        finally:
            await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Yield the installation, whose API serves the pages."""
    async with staged(servers, tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(params=[False, True], ids=["without-javascript", "with-javascript"])
def with_javascript(request: pytest.FixtureRequest) -> bool:
    """Return whether scripts run in the browser: each story needs none, and survives them."""
    return bool(request.param)
