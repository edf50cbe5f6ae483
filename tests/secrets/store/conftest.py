"""The stores of the conformance tests: each kind, empty, on its real server or on one that speaks its protocol."""

from collections.abc import AsyncIterator

import pytest

from hookseal.postgres.pool import Pool
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.store.dev import DevStore
from hookseal.secrets.store.port import ProviderApi, SecretStore
from hookseal.secrets.store.postgres import PostgresStore
from tests.doubles.providers import AWS_ENVIRONMENT, api_of, external
from tests.secrets.samples import RING, register

EXTERNAL = (Provider.OPENBAO, Provider.AWS, Provider.GCP)


def of_providers(*providers: Provider) -> list[object]:
    """Return the parameters for tests of these providers, each marked as a proof of its part."""
    return [
        pytest.param(provider, marks=pytest.mark.req("SEC-01", part=provider.value), id=provider.value)
        for provider in providers
    ]


@pytest.fixture
def aws_url(aws_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make clients of AWS ask moto, and return its url."""
    for name, value in (AWS_ENVIRONMENT | {"AWS_ENDPOINT_URL": aws_address}).items():
        monkeypatch.setenv(name, value)
    return aws_address


@pytest.fixture
def where(request: pytest.FixtureRequest) -> str:
    """The url of the server of the provider of this test, which starts now, outside of an event loop."""
    parameters = request.node.callspec.params
    servers = {Provider.OPENBAO: "openbao_address", Provider.AWS: "aws_url"}
    server = servers.get(parameters.get("store", parameters.get("api")))
    return "" if server is None else str(request.getfixturevalue(server))


@pytest.fixture
async def api(request: pytest.FixtureRequest, where: str) -> AsyncIterator[ProviderApi]:
    """Yield the interface of each provider outside PostgreSQL."""
    async with api_of(request.param, where) as api:
        yield api


@pytest.fixture
async def store(request: pytest.FixtureRequest, where: str, pool: Pool) -> AsyncIterator[SecretStore]:
    """Yield an empty store of each kind."""
    match request.param:
        case Provider.DEV:
            yield DevStore()
        case Provider.DB:
            await register(pool)
            yield PostgresStore(pool, RING)
        case _:
            async with api_of(request.param, where) as api:
                yield external(pool, api)
