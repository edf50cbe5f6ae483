"""How a test gets into the pages: by a link, as a customer or as an operator."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser

from hookseal.admin import ScopeName
from tests.browser.installation import Stage
from tests.browser.visiting import Visit, visiting

CUSTOMER: tuple[ScopeName, ...] = ("read", "manage", "operate", "reveal")


@asynccontextmanager
async def as_customer(
    browser: Browser, stage: Stage, story: str, *, tenant: str, scopes: Sequence[ScopeName] = CUSTOMER, **options: Any
) -> AsyncIterator[Visit]:
    """Yield a visit of jane, who has come by a link to the pages of this tenant."""
    access = await stage.admin.portal.add(tenant_id=tenant, user="jane", scopes=scopes, actor="test")
    async with visiting(browser, stage.url, story, **options) as visit:
        assert access.url is not None
        await visit.page.goto(access.url.reveal().decode())
        await visit.press("Open")
        yield visit


@asynccontextmanager
async def as_operator(browser: Browser, stage: Stage, story: str, **options: Any) -> AsyncIterator[Visit]:
    """Yield a visit of an operator, who has come by a link to the pages of every tenant."""
    access = await stage.admin.portal.add(tenant_id="*", user="operator@test", scopes=("read", "operate"), actor="test")
    async with visiting(browser, stage.url, story, **options) as visit:
        assert access.url is not None
        await visit.page.goto(access.url.reveal().decode())
        await visit.press("Open")
        yield visit
