"""A url of another origin takes along neither headers nor the client certificate: a reveal to who chose the url."""

from typing import Any

import pytest

from hookseal import Admin
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, NotFound, Refused
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.extras import stored
from hookseal.secrets.extras.tls_identity import TlsChange
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.stored import Installation

pytestmark = [pytest.mark.req("DEL-13", part="sealed-values"), pytest.mark.req("DEL-13", part="client-keys")]

URL = "https://receiver.example/hook"
OTHER = "https://attacker.example/hook"
AUTHORITY = Authority()
CLIENT = identity(AUTHORITY.client(), AUTHORITY)
NEXT = identity(AUTHORITY.client("next"), None)
SECRETS = {"authorization": b"Bearer x", "x-key": b"k"}
ALL = ("headers.authorization", "headers.x-key", "client_cert")


async def added(installation: Installation, url: str = URL) -> EndpointId:
    """Add an endpoint with two headers, a client certificate and authorities."""
    new = NewEndpoint(tenant_id=TenantId("acme"), url=url, event_types=("*",))
    return (await installation.add(new, headers=SECRETS, tls=CLIENT)).pointer.endpoint_id


async def updated(installation: Installation, endpoint: EndpointId, **to: Any) -> tuple[str, ...]:
    """Change the endpoint, and return what was dropped."""
    how = {"own_drain_seconds": 25, "keep_headers": to.pop("keep_headers", False)}
    return (await installation.act(update_endpoint, TenantId("acme"), endpoint, to, **how)).dropped


async def sent(installation: Installation) -> tuple[dict[str, bytes], bool, bool]:
    """Return what the next delivery would have: its headers, and whether there is a client key and an authority."""
    row = await installation.claimed()
    async with installation.unlocked.service.headers(row) as headers:
        values = {name: value.reveal() for name, value in headers.items()}
    tls = await stored.opened(installation.unlocked.store, stored.TLS, row)
    return values, tls.client is not None, bool(tls.authorities)


async def test_nothing_secret_goes_along_to_another_origin(installation: Installation) -> None:
    """The authorities are no secret. What is dropped is retired, and on record; the way back does not bring it back."""
    endpoint = await added(installation)
    assert () == await updated(installation, endpoint, url=f"{URL}/2", name="Renamed")
    assert (SECRETS, True, True) == await sent(installation)

    assert ALL == await updated(installation, endpoint, url=OTHER)
    assert ({}, False, True) == await sent(installation)
    *_, entry = await audited(installation.pool)
    assert [*ALL] == entry["after"]["dropped"]
    assert (["authorization", "x-key"], []) == (entry["before"]["header_names"], entry["after"]["header_names"])
    states = await installation.pool.fetch(
        "SELECT state FROM hookseal.secret_records WHERE name ~ '^endpoint-(headers|tls)' ORDER BY 1"
    )
    assert ["active", "retired", "retired"] == [each["state"] for each in states]
    assert () == await updated(installation, endpoint, url=URL)
    assert ({}, False, True) == await sent(installation)


async def test_what_is_given_with_the_url_goes_along(installation: Installation) -> None:
    endpoint = await added(installation)
    given = HeaderChange(given={"x-key": SecretMaterial(b"new")}, removed=frozenset({"authorization"}))
    assert () == await updated(installation, endpoint, url=OTHER, headers=given, tls=TlsChange(client=NEXT.client))
    assert ({"x-key": b"new"}, True, True) == await sent(installation)

    one = HeaderChange(given={"x-a": SecretMaterial(b"a")})
    only_authorities = TlsChange(authorities=CLIENT.authorities)
    assert ("headers.x-key", "client_cert") == await updated(
        installation, endpoint, url=URL, headers=one, tls=only_authorities
    )
    assert ({"x-a": b"a"}, False, True) == await sent(installation)
    missing = HeaderChange(given={}, removed=frozenset({"x-missing"}))
    with pytest.raises(NotFound, match="no header x-missing"):
        await updated(installation, endpoint, url=OTHER, headers=missing)


async def test_a_caller_may_keep_it_or_be_asked(installation: Installation) -> None:
    endpoint = await added(installation)
    rows = len(await audited(installation.pool))
    with pytest.raises(Conflict, match="header authorization, header x-key, client certificate") as caught:
        await updated(installation, endpoint, url=OTHER, keep_headers=None)
    assert ("keep_headers", rows) == (caught.value.field, len(await audited(installation.pool)))

    assert () == await updated(installation, endpoint, url=OTHER, keep_headers=True)
    assert (SECRETS, True, True) == await sent(installation)
    *_, entry = await audited(installation.pool)
    assert [*ALL] == entry["after"]["kept"]
    assert "dropped" not in entry["after"]
    assert () == await updated(installation, endpoint, url=f"{OTHER}/2", keep_headers=None)


async def test_columns_that_only_show_something_hide_nothing(installation: Installation) -> None:
    """They have no MAC: somebody with the rights of a writer may empty them before."""
    endpoint = await added(installation)
    await installation.pool.execute("UPDATE hookseal.endpoints SET header_names = '{}', tls_shown = NULL")
    assert ("client_cert",) == await updated(installation, endpoint, url=OTHER)
    assert ({}, False, True) == await sent(installation)


async def test_a_role_that_may_not_open_them_may_not_keep_them(
    installation: Installation, environ: dict[str, str]
) -> None:
    """What it cannot take out of the sealed record is dropped with it: the authorities."""
    endpoint = await added(installation)
    change: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint, "actor": "test", "url": OTHER}
    async with (
        login(installation.pool, environ["DATABASE_URL"], "hookseal_api") as (_, url),
        Admin.connect(url, environ=environ) as admin,
    ):
        with pytest.raises(Refused, match="may keep them") as caught:
            await admin.endpoints.update(**change, keep_headers=True)
        assert "keep_headers" == caught.value.field
        assert (SECRETS, True, True) == await sent(installation)
        assert (*ALL, "ca") == (await admin.endpoints.update(**change)).dropped
    assert ({}, False, False) == await sent(installation)
