"""What hookseal has and Svix does not, under a path of its own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from hookseal import Admin, Publisher
from hookseal.api import app
from tests import rows
from tests.doubles.applications import served
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.operations.test_replay_jobs import dead_letters

PATH = "/api/hookseal/v1/app/acme"


async def test_a_rotation_is_shown_rolled_back_and_ended(client: httpx.AsyncClient, admin: Admin) -> None:
    added = await admin.endpoints.add(
        tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test"
    )
    own: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    path = f"{PATH}/endpoint/main/rotation"
    before = (await client.get(path)).json()
    assert (1, None, None, False) == (
        *(before[name] for name in ("generation", "previousSecretRef", "overlapEndsAt", "overlapping")),
    )
    assert 409 == (await client.post(f"{path}/rollback", json={})).status_code
    rotated = await admin.secrets.rotate(**own, actor="test")
    shown = (await client.get(path)).json()
    assert (rotated.secret_ref, added.secret_ref, True) == (
        *(shown[name] for name in ("secretRef", "previousSecretRef", "overlapping")),
    )
    back = await client.post(f"{path}/rollback", json={"gracePeriodSeconds": 60})
    assert (200, added.secret_ref, rotated.secret_ref) == (
        back.status_code,
        *(back.json()[name] for name in ("secretRef", "previousSecretRef")),
    )
    wrong = await client.post(f"{path}/rollback", json={"gracePeriodSeconds": -1})
    assert ["body", "gracePeriodSeconds"] == wrong.json()["detail"][0]["loc"]
    ended = await client.post(f"{path}/end")
    assert (200, added.secret_ref, None, False) == (
        ended.status_code,
        *(ended.json()[name] for name in ("secretRef", "previousSecretRef", "overlapping")),
    )
    assert 409 == (await client.post(f"{path}/end")).status_code


async def test_a_delivery_is_explained(client: httpx.AsyncClient, admin: Admin, installation: Installation) -> None:
    """In the words of the states; the commands of an operator are not for a customer."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    await admin.endpoints.disable(tenant_id="acme", endpoint_id=added.endpoint_id, reason="it moves", actor="test")
    [ring] = await installation.deliveries()
    answer = await client.get(f"{PATH}/delivery/{ring.delivery_id}/why")

    assert {"deliveryId": ring.delivery_id, "state": "pending", "waitingFor": "endpoint_disabled"} == {
        name: answer.json()[name] for name in ("deliveryId", "state", "waitingFor")
    }
    assert "hookseal" not in answer.text


async def test_an_ordered_endpoint_goes_on(client: httpx.AsyncClient, admin: Admin, installation: Installation) -> None:
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], ordered=True, actor="test")
    [stopping] = await dead_letters(installation, 1)
    path = f"{PATH}/delivery/{stopping}/skip"
    first, again = await client.post(path), await client.post(path)

    assert (200, "dead_letter") == (first.status_code, first.json()["state"])
    assert (409, "conflict") == (again.status_code, again.json()["code"])


@pytest.mark.req("API-03")
async def test_a_token_makes_none_that_may_do_more(admin: Admin, publisher: Publisher) -> None:
    """With its scopes only, and only if it is for every tenant; the text is shown once, and a revoked one refused."""
    few = await admin.tokens.add(name="few", tenant_id="*", scopes=["read", "manage"], actor="test")
    own = await admin.tokens.add(name="own", tenant_id="acme", scopes=["read", "manage", "reveal"], actor="test")
    path = "/api/hookseal/v1/token"

    def bearing(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    async with served(app(admin, publisher)) as url, httpx.AsyncClient(base_url=url) as client:
        client.headers = httpx.Headers(bearing(few.token.reveal().decode()))
        more = {"name": "x", "tenantId": "acme", "scopes": ["read", "reveal"]}
        refused = await client.post(path, json=more)
        assert (403, "insufficient_access") == (refused.status_code, refused.json()["code"])
        made = (await client.post(path, json=more | {"scopes": ["read"]})).json()
        assert ("x", "acme", ["read"], "active") == tuple(
            made[name] for name in ("name", "tenantId", "scopes", "state")
        )
        theirs = bearing(made["token"])
        assert 200 == (await client.get("/api/v1/app/acme/endpoint", headers=theirs)).status_code
        assert 404 == (await client.get("/api/v1/app/globex/endpoint", headers=theirs)).status_code
        listed = (await client.get(path)).json()["data"]
        assert [("x", None), ("own", None), ("few", None)] == [(each["name"], each["token"]) for each in listed]
        assert 403 == (await client.get(path, headers=bearing(own.token.reveal().decode()))).status_code
        wrong = await client.post(path, json=more | {"scopes": ["all"]})
        assert ["body", "scopes", "0"] == wrong.json()["detail"][0]["loc"]
        assert 409 == (await client.post(path, json=more | {"scopes": ["read"]})).status_code
        assert "revoked" == (await client.delete(f"{path}/x")).json()["state"]
        assert 401 == (await client.get("/api/v1/app/acme/endpoint", headers=theirs)).status_code
        assert 404 == (await client.delete(f"{path}/x")).status_code


@pytest.mark.req("API-03")
async def test_a_token_that_expires_makes_none_that_outlives_it(admin: Admin, publisher: Publisher) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    short = await admin.tokens.add(name="short", tenant_id="*", scopes=["manage"], expires_at=end, actor="test")
    async with served(app(admin, publisher)) as url, httpx.AsyncClient(base_url=url) as client:
        client.headers["authorization"] = f"Bearer {short.token.reveal().decode()}"

        async def status(name: str, **more: str) -> int:
            body = {"name": name, "tenantId": "acme", "scopes": ["manage"], **more}
            return (await client.post("/api/hookseal/v1/token", json=body)).status_code

        later = end + timedelta(seconds=1)
        assert [403, 403, 201] == [
            await status("never"),
            await status("later", expiresAt=later.isoformat()),
            await status("as-long", expiresAt=end.isoformat()),
        ]


@pytest.mark.req("API-03")
async def test_what_is_no_token_is_refused(admin: Admin, publisher: Publisher, installation: Installation) -> None:
    """A text that is none, one like a token, and one that has expired, each in the same way."""
    ended = await admin.tokens.add(
        name="ended", tenant_id="*", scopes=["read"], expires_at=datetime.now(UTC) + timedelta(hours=1), actor="test"
    )
    await rows.change(installation.pool, "api_tokens", expires_at=rows.ago(minutes=1), created_at=rows.ago(hours=1))
    async with served(app(admin, publisher)) as url, httpx.AsyncClient(base_url=url) as client:
        for token in ("x", "whst_" + "A" * 43, "whst_", "*", "%00", ended.token.reveal().decode()):
            answer = await client.get("/api/v1/app", headers={"authorization": f"Bearer {token}"})
            assert (401, {"code": "authentication_failed", "detail": "Invalid token"}) == (
                answer.status_code,
                answer.json(),
            ), token


async def test_the_audit_log_names_token_and_user(
    admin: Admin, publisher: Publisher, installation: Installation
) -> None:
    made = await admin.tokens.add(name="product", tenant_id="acme", scopes=["manage"], actor="test")
    headers = {"authorization": f"Bearer {made.token.reveal().decode()}"}
    async with served(app(admin, publisher)) as url, httpx.AsyncClient(base_url=url, headers=headers) as client:
        for number, user in enumerate((None, "jane@acme.example")):
            more = {} if user is None else {"hookseal-user": user}
            endpoint = {"url": f"https://{number}.example"}
            assert 201 == (await client.post("/api/v1/app/acme/endpoint", json=endpoint, headers=more)).status_code
        wrong = await client.get("/api/v1/app/acme", headers={"hookseal-user": "a" * 65})

    assert ["token:product", "token:product/jane@acme.example"] == [
        row["who"] for row in await audited(installation.pool) if row["action"] == "endpoint.added"
    ]
    assert (422, ["header", "hookseal-user"]) == (wrong.status_code, wrong.json()["detail"][0]["loc"])
