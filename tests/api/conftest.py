"""The API over a real Admin and Publisher on an installation that has begun, with three accesses."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request

from hookseal import Admin, Publisher
from hookseal.api import ALL, Access, Scope, app
from tests.doubles.applications import served
from tests.doubles.stored import Installation

ACCESSES = {
    "every": Access(tenant_id=None, scopes=ALL, actor="token:every"),
    "acme": Access(tenant_id="acme", scopes=ALL, actor="token:acme"),
    "globex": Access(tenant_id="globex", scopes=ALL, actor="token:globex"),
    "operator": Access(tenant_id="acme", scopes=ALL - {Scope.PUBLISH}, actor="token:operator"),
    "reader": Access(tenant_id="acme", scopes=frozenset({Scope.READ}), actor="token:reader"),
}


def signed_in(request: Request) -> Access | None:
    """Return the access that the bearer of the request names."""
    return ACCESSES.get(request.headers.get("authorization", "").removeprefix("Bearer "))


@pytest.fixture
async def publisher(installation: Installation, database_url: str) -> AsyncIterator[Publisher]:
    """Yield a Publisher on this installation, without Redis."""
    async with Publisher.connect(database_url, "") as publisher:
        yield publisher


@pytest.fixture
async def url(admin: Admin, publisher: Publisher) -> AsyncIterator[str]:
    """Yield the address of the API, whose tokens are the names of the accesses."""
    async with served(app(admin, publisher, who=signed_in)) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that may do everything for every tenant."""
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer every"}) as client:
        yield client
