"""Access for the customers of a product, as the official client asks for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from svix.api import EndpointIn, EndpointListOptions, SvixAsync
from svix.exceptions import HttpError, HTTPValidationError
from svix.models import ApplicationIn, ApplicationTokenExpireIn, AppPortalAccessIn, AppPortalCapability

from hookseal import Admin, Publisher
from hookseal.api import ALL, Scope, app
from hookseal.api.calls import portal
from tests.api.official import official
from tests.doubles.applications import served
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("API-02", part="python")
AUTH = "/api/v1/auth"
PAGES = "https://webhooks.product.example/portal"


@pytest.fixture
async def server(admin: Admin, publisher: Publisher) -> AsyncIterator[str]:
    """Yield the address of an API that takes tokens, and has no pages."""
    async with served(app(admin, publisher)) as url:
        yield url


@pytest.fixture
async def product(server: str, admin: Admin) -> AsyncIterator[SvixAsync]:
    """Yield the client of a product, whose token may do everything for every tenant."""
    made = await admin.tokens.add(name="product", tenant_id="*", scopes=[*Scope], actor="test")
    async with official(made.token.reveal().decode(), server) as client:
        yield client


@asynccontextmanager
async def with_token(server: str, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with this token."""
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=server, headers=headers) as client:
        yield client


def refused(caught: pytest.ExceptionInfo[HTTPValidationError]) -> tuple[list[str], str]:
    """Return what of a request is wrong, and of which kind that is."""
    [detail] = caught.value.detail
    return detail.loc, detail.type


@pytest.mark.req("API-03")
async def test_a_customer_is_let_in_and_out(product: SvixAsync, server: str, installation: Installation) -> None:
    """For its tenant only, and with the own token it ends that one only."""
    one, other = [await product.authentication.app_portal_access("acme", AppPortalAccessIn()) for _ in range(2)]
    assert ("", "whst_") == (one.url, one.token[:5])
    async with official(one.token, server) as customer, official(other.token, server) as colleague:
        made = await customer.endpoint.create("acme", EndpointIn(url="https://a.example"))
        assert [made.id] == [each.id for each in (await colleague.endpoint.list("acme", EndpointListOptions())).data]
        with pytest.raises(HttpError) as caught:
            await customer.endpoint.get("globex", made.id)
        assert 404 == caught.value.status_code
        with pytest.raises(HttpError) as caught:
            await customer.endpoint.get_secret("acme", made.id)
        assert 403 == caught.value.status_code
        assert await customer.authentication.logout() is None  # type: ignore[func-returns-value]
        with pytest.raises(HttpError) as caught:
            await customer.endpoint.list("acme")
        assert (401, "authentication_failed") == (caught.value.status_code, caught.value.code)
        assert 1 == len((await colleague.endpoint.list("acme")).data)
    log = await audited(installation.pool)
    [access, created, ended] = [log[0], *log[2:]]
    assert ["portal.added", "portal.added", "endpoint.added", "token.revoked"] == [row["action"] for row in log]
    assert ("token:product", access["subject"], access["subject"]) == (access["who"], created["who"], ended["who"])
    assert access["subject"] == ended["subject"]


@pytest.mark.req("API-03")
async def test_a_portal_lets_nobody_in(product: SvixAsync, server: str, admin: Admin) -> None:
    """It makes no token, ends no other one, and does nothing of every tenant."""
    everything = [each for each in AppPortalCapability if "Transformations" not in each.value]
    made = await product.authentication.app_portal_access("acme", AppPortalAccessIn(capabilities=everything))
    found = await admin.tokens.find(made.token)
    assert found is not None
    assert ("read", "manage", "operate", "reveal") == found.scopes
    token = {"name": "x", "tenantId": "acme", "scopes": ["read"], "expiresAt": "2030-01-01T00:00:00Z"}
    async with with_token(server, made.token) as customer:
        for method, path, body in (
            ("POST", f"{AUTH}/app-portal-access/acme", {}),
            ("POST", f"{AUTH}/app/acme/expire-all", {}),
            ("POST", "/api/hookseal/v1/token", token),
            ("GET", "/api/hookseal/v1/token", None),
            ("DELETE", "/api/hookseal/v1/token/product", None),
            ("POST", "/api/v1/app", {"name": "x"}),
        ):
            answer = await customer.request(method, path, json=body)
            assert (403, "insufficient_access") == (answer.status_code, answer.json()["code"]), path
    assert 1 == len((await admin.tokens.list(tenant_id="*", portal=True)).items)


async def test_only_a_portal_logs_out(product: SvixAsync, client: httpx.AsyncClient) -> None:
    with pytest.raises(HttpError) as caught:
        await product.authentication.logout()
    assert (403, "insufficient_access") == (caught.value.status_code, caught.value.code)
    assert 403 == (await client.post(f"{AUTH}/logout")).status_code  # under a session of the product
    assert [] == (await product.endpoint.list("acme")).data


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        ({}, "read manage operate"),
        ({"read_only": True}, "read"),
        ({"read_only": False}, "read manage operate"),
        ({"capabilities": ["ViewBase"]}, "read"),
        ({"capabilities": ["ViewBase", "ViewEndpointSecret"]}, "read reveal"),
        ({"capabilities": ["CreateAttempts", "ViewBase"]}, "read operate"),
        ({"capabilities": ["ViewBase", "ManageEndpoint"]}, "read manage"),
        ({"capabilities": ["ViewBase", "ManageEndpoint", "ManageEndpointSecret"]}, "read manage reveal"),
        ({"capabilities": ["ViewBase", "ManageEndpoint", "ViewEndpointSecret"], "read_only": True}, "read reveal"),
    ],
)
def test_capabilities_are_scopes(given: Any, scopes: str) -> None:
    assert {*scopes.split()} == portal.scopes_of(portal.AppPortalAccessIn(**given), ALL)


def test_by_default_a_portal_may_what_the_product_may() -> None:
    for own, scopes in (("read publish manage", "read manage"), ("read reveal", "read"), ("manage", "read manage")):
        has = frozenset(map(Scope, own.split()))
        assert {*scopes.split()} == portal.scopes_of(portal.AppPortalAccessIn(), has), own


@pytest.mark.req("API-07")
async def test_what_is_not_done_is_refused(product: SvixAsync, admin: Admin) -> None:
    cases: list[tuple[dict[str, Any], tuple[list[str], str]]] = [
        *(
            ({"capabilities": names}, (["body", "capabilities"], kind))
            for names, kind in (
                (["ViewBase", "ManageTransformations"], "not_supported"),
                (["ViewBase", "ManageEndpointSecret"], "not_supported"),
                (["ManageEndpoint"], "value_error"),
                ([], "value_error"),
            )
        ),
        ({"feature_flags": ["beta"]}, (["body", "featureFlags"], "not_supported")),
        ({"feature_flags": []}, (["body", "featureFlags"], "not_supported")),
        ({"application": ApplicationIn(name="Acme")}, (["body", "application"], "not_supported")),
        ({"expiry": 59}, (["body", "expiry"], "value_error")),
        ({"expiry": 604_801}, (["body", "expiry"], "value_error")),
        ({"session_id": "a b"}, (["body", "sessionId"], "value_error")),
    ]
    for given, expected in cases:
        with pytest.raises(HTTPValidationError) as caught:
            await product.authentication.app_portal_access("acme", AppPortalAccessIn(**given))
        assert expected == refused(caught), given
    assert () == (await admin.tokens.list(tenant_id="*", portal=True)).items


async def test_a_member_that_is_null_is_as_one_that_is_left_out(product: SvixAsync) -> None:
    members: dict[str, Any] = dict.fromkeys(AppPortalAccessIn.model_fields)
    made = await product.authentication.app_portal_access("acme", AppPortalAccessIn(**members))
    nothing: dict[str, Any] = dict.fromkeys(ApplicationTokenExpireIn.model_fields)
    await product.authentication.expire_all("acme", ApplicationTokenExpireIn(**nothing))
    assert made.token


@pytest.mark.req("API-03")
async def test_an_access_gives_no_more_than_the_own_one(server: str, admin: Admin) -> None:
    """By default what it may; a scope that it has not is refused; and it ends with it."""
    end = datetime.now(UTC) + timedelta(minutes=30)
    few = await admin.tokens.add(
        name="few", tenant_id="*", scopes=["read", "publish", "manage"], expires_at=end, actor="test"
    )
    blind = await admin.tokens.add(name="blind", tenant_id="*", scopes=["manage"], actor="test")
    async with official(few.token.reveal().decode(), server) as product:
        made = await product.authentication.app_portal_access("acme", AppPortalAccessIn(expiry=3_600))
        short = await product.authentication.app_portal_access("acme", AppPortalAccessIn(expiry=60))
        for capabilities in (["CreateAttempts"], ["ViewEndpointSecret"]):
            given: Any = ["ViewBase", *capabilities]
            with pytest.raises(HttpError) as caught:
                await product.authentication.app_portal_access("acme", AppPortalAccessIn(capabilities=given))
            assert (403, "insufficient_access") == (caught.value.status_code, caught.value.code)
    found, of_short = await admin.tokens.find(made.token), await admin.tokens.find(short.token)
    assert found is not None
    assert (("read", "manage"), end) == (found.scopes, found.expires_at)
    assert of_short is not None
    assert of_short.expires_at is not None
    assert of_short.expires_at < end
    async with official(blind.token.reveal().decode(), server) as product:
        with pytest.raises(HttpError) as caught:
            await product.authentication.app_portal_access("acme", AppPortalAccessIn())
        assert 403 == caught.value.status_code


async def test_the_portals_of_a_tenant_end(product: SvixAsync, admin: Admin) -> None:
    """All, or those of some sessions; at once, or in some seconds."""
    access = product.authentication.app_portal_access
    made = [await access("acme", AppPortalAccessIn(session_id=each)) for each in ("a", "b")]
    made.append(await access("globex", AppPortalAccessIn()))

    async def left() -> list[bool]:
        return [await admin.tokens.find(each.token) is not None for each in made]

    await product.authentication.expire_all("acme", ApplicationTokenExpireIn(session_ids=["a"]))
    assert [False, True, True] == await left()
    await product.authentication.expire_all("acme", ApplicationTokenExpireIn(expiry=60))
    assert [False, True, True] == await left()
    [later, _] = (await admin.tokens.list(tenant_id="acme", portal=True)).items
    assert later.expires_at is not None
    assert later.expires_at < datetime.now(UTC) + timedelta(minutes=2)
    await product.authentication.expire_all("acme", ApplicationTokenExpireIn())
    assert [False, False, True] == await left()
    with pytest.raises(HTTPValidationError) as caught:
        await product.authentication.expire_all("acme", ApplicationTokenExpireIn(expiry=-1))
    assert ["body", "expiry"] == refused(caught)[0]
    with pytest.raises(HttpError) as absent:
        await product.authentication.expire_all("x" * 200, ApplicationTokenExpireIn())
    assert 404 == absent.value.status_code


async def test_a_link_opens_the_pages(
    admin: Admin, publisher: Publisher, environ: dict[str, str], product: SvixAsync
) -> None:
    """Its address is that of the pages, its code makes a session, and a product that is no client of Svix says more."""
    token = await admin.tokens.add(name="other", tenant_id="*", scopes=["read", "manage"], actor="test")
    async with (
        Admin.connect(environ=environ | {"HOOKSEAL_PORTAL_URL": PAGES}) as of_pages,
        served(app(of_pages, publisher)) as url,
        with_token(url, token.token.reveal().decode()) as other,
    ):
        more = {"user": "jane", "refreshUrl": "https://product.example/webhooks", "expiry": 600}
        answer = await other.post(f"{AUTH}/app-portal-access/acme", json=more)
        assert (200, {"url", "token"}) == (answer.status_code, answer.json().keys())
        link = answer.json()["url"]
        assert link.startswith(f"{PAGES}/login?code=whsc_")
        session = await of_pages.portal.exchange(code=link.partition("code=")[2])
        wrong = await other.post(f"{AUTH}/app-portal-access/acme", json={"refreshUrl": "javascript:alert(1)"})
        unnamed = await other.post(f"{AUTH}/app-portal-access/acme", json={"user": "a\nb"})
    assert ("acme", "jane", more["refreshUrl"]) == (session.tenant_id, session.user, session.refresh_url)
    assert [["body", "refreshUrl"], ["body", "user"]] == [each.json()["detail"][0]["loc"] for each in (wrong, unnamed)]


@pytest.mark.req("API-03")
async def test_a_portal_acts_for_the_user_that_the_product_named(
    server: str, admin: Admin, installation: Installation
) -> None:
    """A caller with its token cannot name another one."""
    made = await admin.portal.add(tenant_id="acme", user="jane", actor="test")
    async with with_token(server, made.token.reveal().decode()) as customer:
        endpoint = {"url": "https://a.example"}
        named = await customer.post("/api/v1/app/acme/endpoint", json=endpoint, headers={"hookseal-user": "omar"})
        assert (422, ["header", "hookseal-user"]) == (named.status_code, named.json()["detail"][0]["loc"])
        assert 201 == (await customer.post("/api/v1/app/acme/endpoint", json=endpoint)).status_code
    assert f"token:{made.name}/jane" == (await audited(installation.pool))[-1]["who"]


@pytest.mark.req("API-03")
async def test_a_request_without_a_token_says_so(server: str) -> None:
    """Another text than for one whose token is none, also if the header is malformed."""
    async with httpx.AsyncClient(base_url=server) as client:
        for header in (None, "Basic abc", "Bearer", "Bearer a b", ""):
            answer = await client.get("/api/v1/app", headers={} if header is None else {"authorization": header})
            assert (401, "authentication_failed", "Bearer") == (
                answer.status_code,
                answer.json()["code"],
                answer.headers["www-authenticate"],
            )
            assert answer.json()["detail"].startswith("No token"), header
        wrong = await client.get("/api/v1/app", headers={"authorization": "Bearer none"})
        assert "Invalid token" == wrong.json()["detail"]
