"""The pages over a real Admin on an installation that has begun, with visitors of two customers."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from starlette.requests import Request

from hookseal import Admin
from hookseal.api import ALL, Access, Scope
from hookseal.pages import app
from tests.doubles.applications import served
from tests.pages.browser import Browser

ACCESSES = {
    "jane": Access(tenant_id="acme", scopes=ALL, actor="jane@acme.example"),
    "omar": Access(tenant_id="globex", scopes=ALL, actor="omar@globex.example"),
    "reader": Access(tenant_id="acme", scopes=frozenset({Scope.READ}), actor="rita@acme.example"),
    "manager": Access(tenant_id="acme", scopes=frozenset({Scope.READ, Scope.MANAGE}), actor="max@acme.example"),
    "operator": Access(tenant_id="acme", scopes=frozenset({Scope.READ, Scope.OPERATE}), actor="ole@acme.example"),
    "revealer": Access(tenant_id="acme", scopes=frozenset({Scope.READ, Scope.REVEAL}), actor="rea@acme.example"),
    "writer": Access(tenant_id="acme", scopes=frozenset({Scope.MANAGE}), actor="wim@acme.example"),
    "every": Access(tenant_id=None, scopes=ALL, actor="root@product.example"),
}
VISITOR = "product-session"  # the cookie of the product


def signed_in(request: Request) -> Access | None:
    """Return the access of the visitor whom the cookie of the product names."""
    return ACCESSES.get(request.cookies.get(VISITOR, ""))


@pytest.fixture
async def url(admin: Admin) -> AsyncIterator[str]:
    """Yield the address of the pages, under the sessions of a product."""
    async with served(app(admin, who=signed_in, back_url="https://product.example/sign-in")) as url:
        yield url


Browsing = Callable[[str], AbstractAsyncContextManager[Browser]]


@pytest.fixture
def browsing(url: str) -> Browsing:
    """Return what opens a browser of a visitor."""

    @asynccontextmanager
    async def of(visitor: str) -> AsyncIterator[Browser]:
        async with httpx.AsyncClient(base_url=url, follow_redirects=True, cookies={VISITOR: visitor}) as client:
            yield Browser(client)

    return of


@pytest.fixture
async def jane(browsing: Browsing) -> AsyncIterator[Browser]:
    """Yield the browser of a visitor who may do everything for acme."""
    async with browsing("jane") as browser:
        yield browser
