"""What hookseal has and Svix does not, under a path of its own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from hookseal import Admin, Publisher
from hookseal.api import app
from tests import rows
from tests.api.conftest import signed_in
from tests.cli.switching import switching
from tests.doubles.applications import served
from tests.doubles.logbook import audited
from tests.doubles.logins import login
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


async def test_a_receiver_is_asked_whether_it_has_switched(client: httpx.AsyncClient, admin: Admin) -> None:
    """And if it has, the overlap may be ended at once; a receiver that is away says nothing, and ends none."""
    async with switching() as receiver:
        added = await admin.endpoints.add(
            tenant_id="acme", url=receiver.url, event_types=["*"], uid="main", actor="test"
        )
        own: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id, "actor": "test"}
        path = f"{PATH}/endpoint/main/rotation"
        assert added.secret is not None
        receiver.secrets = [added.secret.reveal().decode()]
        rotated = await admin.secrets.rotate(**own)
        assert rotated.secret is not None
        first = await client.post(f"{path}/probe", json={"endOverlap": True})
        receiver.secrets = [rotated.secret.reveal().decode()]
        second = await client.post(f"{path}/probe", json={})
        shown = await client.get(path)
        third = await client.post(f"{path}/probe", json={"endOverlap": True})
        fourth = await client.post(f"{path}/probe", json={"endOverlap": True})

    assert [("not_switched", True), ("switched", True), ("switched", False)] == [
        (each.json()["canary"]["verdict"], each.json()["overlapping"]) for each in (first, second, third)
    ]
    assert second.json() == shown.json()
    assert (409, "conflict") == (fourth.status_code, fourth.json()["code"])


async def test_public_keys_are_shown(client: httpx.AsyncClient, admin: Admin) -> None:
    """Of an endpoint that has some, while it rotates both; another one says that it has none."""
    added = await admin.endpoints.add(
        tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", algorithm="ed25519", actor="test"
    )
    await admin.endpoints.add(tenant_id="acme", url="https://b.example", event_types=["*"], uid="hmac", actor="test")
    rotated = await admin.secrets.rotate(tenant_id="acme", endpoint_id=added.endpoint_id, actor="test")
    keys = (await client.get(f"{PATH}/endpoint/main/public-keys")).json()
    none = await client.get(f"{PATH}/endpoint/hmac/public-keys")

    assert (rotated.public_key, added.public_key) == (keys["publicKey"], keys["previousPublicKey"])
    assert keys["overlapEndsAt"] is not None
    assert (403, "the endpoint signs with hmac, which has no public key") == (
        none.status_code,
        none.json()["detail"],
    )


async def test_a_delivery_is_found_by_its_webhook_id(
    client: httpx.AsyncClient, admin: Admin, installation: Installation
) -> None:
    """With its attempts, why the last one failed, and when the next one is; the list has it by each condition."""
    added = await admin.endpoints.add(
        tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test"
    )
    [ring] = (event := await installation.published()).deliveries
    await rows.attempt(installation.pool, ring.delivery_id, 1, status=503, outcome="server_error", snippet="oh")
    later: dict[str, Any] = {"attempts": 1, "budget_spent": 1, "next_attempt_at": rows.ahead(minutes=5)}
    error = "the receiver answered 503"
    await rows.change(installation.pool, "deliveries", ring.delivery_id, last_error=error, **later)
    stored = await admin.deliveries.get(tenant_id="acme", delivery_id=ring.delivery_id)
    assert stored.next_attempt_at is not None
    found = (await client.get(f"{PATH}/delivery/{ring.delivery_id}")).json()
    why = (await client.get(f"{PATH}/delivery/{ring.delivery_id}/why")).json()
    standing = {
        "state": "pending",
        "attempts": 1,
        "lastError": "the receiver answered 503",
        "waitingFor": None,
        "nextAttemptAt": stored.next_attempt_at.isoformat().replace("+00:00", "Z"),
    }

    for answer in (found, why):
        assert standing == {name: answer[name] for name in standing}
    assert (event.event_id, added.endpoint_id, "invoice.paid") == (
        *(found[name] for name in ("msgId", "endpointId", "eventType")),
    )
    [attempt] = found["attemptLog"]
    assert (f"{ring.delivery_id}.1", 503, "oh") == (
        *(attempt[name] for name in ("id", "responseStatusCode", "response")),
    )
    for given, is_there in (
        ({}, True),
        ({"endpoint_id": "main"}, True),
        ({"msg_id": event.event_id}, True),
        ({"msg_id": "no-such"}, False),
        ({"event_type": "invoice.paid"}, True),
        ({"event_type": "a"}, False),
        ({"channel": "eu"}, False),
        ({"states": "pending,failed"}, True),
        ({"states": "dead_letter"}, False),
        ({"after": "2100-01-01T00:00:00Z"}, False),
        ({"before": "2100-01-01T00:00:00Z"}, True),
        ({"iterator": ring.delivery_id}, False),
    ):
        page = (await client.get(f"{PATH}/delivery", params=given)).json()
        own = {name: value for name, value in found.items() if name != "attemptLog"}
        assert [own] * is_there == page["data"], given
    wrong = await client.get(f"{PATH}/delivery", params={"states": "lost"})
    assert (["query", "states", "0"], "must be one of cancelled, dead_letter, delivered, failed, pending, sending") == (
        *(wrong.json()["detail"][0][name] for name in ("loc", "msg")),
    )


async def test_settings_that_svix_does_not_have(client: httpx.AsyncClient) -> None:
    """A new endpoint may have all of them; later each that may change is changed, and null removes."""
    settings = {
        "name": "Billing",
        "timeoutMs": 5_000,
        "retrySchedule": [5, 60],
        "rotateEveryDays": 7,
        "concurrency": 3,
        "ordered": True,
        "onDeadLetter": "skip",
        "scheme": "x-webhook",
        "algorithm": "hmac",
    }
    new = {"url": "https://a.example", "uid": "main", "throttleRate": 9, **settings}
    made = await client.post(f"{PATH}/endpoint", json=new)
    path = f"{PATH}/endpoint/main/settings"
    shown = (await client.get(path)).json()
    assert (201, 9) == (made.status_code, made.json()["throttleRate"])
    assert settings | {"throttleRate": 9, "attemptsAllowed": 3, "state": "healthy"} == {
        name: shown[name] for name in (*settings, "throttleRate", "attemptsAllowed", "state")
    }
    changes: dict[str, Any] = {
        "retrySchedule": None, "maxAttempts": 4, "backoffBaseSeconds": 10, "backoffCapSeconds": 20,
        "concurrency": None, "throttleRate": None, "rotateEveryDays": None, "name": "B", "onDeadLetter": "stop",
    }  # fmt: skip
    patched = await client.patch(path, json=changes)
    assert 200 == patched.status_code
    assert changes == {name: patched.json()[name] for name in changes}
    assert patched.json() == (await client.patch(path, json={})).json()


@pytest.mark.parametrize(
    ("given", "loc", "message"),
    [
        ({"concurrency": 0}, "concurrency", "concurrency must be 1 to 1000"),
        ({"throttleRate": 0}, "throttleRate", "throttleRate must be 1 to 10000"),
        ({"timeoutMs": 1}, "timeoutMs", "timeoutMs must be 100 to 20000 ms"),
        (
            {"retrySchedule": [5], "maxAttempts": 2},
            "retrySchedule",
            "retrySchedule replaces maxAttempts, backoffBaseSeconds and backoffCapSeconds: give it without them",
        ),
        ({"onDeadLetter": "x"}, "onDeadLetter", "must be one of skip, stop"),
        ({"ordered": True}, "ordered", "is not known"),
    ],
)
async def test_a_wrong_setting_is_named_as_in_the_request(
    given: dict[str, Any], loc: str, message: str, client: httpx.AsyncClient
) -> None:
    assert (
        201
        == (
            await client.post("/api/v1/app/acme/endpoint", json={"url": "https://a.example", "uid": "main"})
        ).status_code
    )
    wrong = await client.patch(f"{PATH}/endpoint/main/settings", json=given)

    assert (422, ["body", loc], message) == (
        wrong.status_code,
        *(wrong.json()["detail"][0][name] for name in ("loc", "msg")),
    )


async def test_a_replay_is_counted_started_and_cancelled(
    client: httpx.AsyncClient, admin: Admin, installation: Installation
) -> None:
    """By its conditions, which count and start share; with nothing to send it has finished."""
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test")
    await dead_letters(installation, 3)
    path = f"{PATH}/replay"
    for given, expected in (
        ({}, 3),
        ({"endpoint_id": "main"}, 3),
        ({"states": "failed,cancelled"}, 0),
        ({"event_type": "a"}, 0),
        ({"since": "2100-01-01T00:00:00Z"}, 0),
    ):
        counted = (await client.get(f"{path}/count", params=given)).json()
        skipped = {"endpoint_disabled": 0, "endpoint_deleted": 0}
        assert {"wouldSend": expected, "wouldSkip": skipped, "complete": True} == counted, given
    assert 404 == (await client.get(f"{path}/count", params={"endpoint_id": "none"})).status_code
    assert 404 == (await client.post(path, json={"endpointId": "none"})).status_code
    nothing = await client.post(path, json={"eventType": "a"})
    started = await client.post(path, json={"endpointId": "main", "states": ["dead_letter"], "ratePerSecond": 1})
    task = started.json()["id"]
    assert (202, "acme.none", "finished", "running") == (
        *(nothing.status_code, nothing.json()["id"], nothing.json()["status"], started.json()["status"]),
    )
    ending = f"/api/hookseal/v1/background-task/{task}/cancel"
    cancelled, again = await client.post(ending), await client.post(ending)
    assert ("failed", 409) == (cancelled.json()["status"], again.status_code)
    assert [task] == [each["id"] for each in (await client.get("/api/v1/background-task")).json()["data"]]
    none = await client.get("/api/v1/background-task", params={"iterator": "acme.none"})
    assert (422, ["query", "iterator"]) == (none.status_code, none.json()["detail"][0]["loc"])
    assert 404 == (await client.post("/api/hookseal/v1/background-task/acme.none/cancel")).status_code


async def test_a_task_that_is_listed_can_be_read(
    client: httpx.AsyncClient, admin: Admin, installation: Installation
) -> None:
    """An access for every tenant sees those of operational webhooks, too."""
    endpoint_id = await rows.endpoint(installation.pool, tenant="_operator")
    await rows.delivery(installation.pool, endpoint_id, tenant="_operator", state="dead_letter")
    job = await admin.replays.start(tenant_id="_operator", actor="test")
    [listed] = (await client.get("/api/v1/background-task")).json()["data"]

    assert f"_operator.{job.replay_id}" == listed["id"]
    assert listed == (await client.get(f"/api/v1/background-task/{listed['id']}")).json()


async def test_the_audit_log_of_a_tenant_is_listed(client: httpx.AsyncClient) -> None:
    """The newest row first, by page, and by the kind of change; who did it without the database role."""
    for name in ("a", "b", "c"):
        await client.post("/api/v1/app/acme/endpoint", json={"url": f"https://{name}.example", "uid": name})
    await client.delete("/api/v1/app/acme/endpoint/a")
    path = f"{PATH}/audit"
    first = (await client.get(path, params={"limit": 2})).json()
    rest = (await client.get(path, params={"iterator": first["iterator"]})).json()
    added = (await client.get(path, params={"action": "endpoint.added"})).json()
    wrong = await client.get(path, params={"action": "endpoint.lost"})

    log = first["data"] + rest["data"]
    assert ["4", "3", "2", "1"] == [each["id"] for each in log]
    assert ("endpoint.deleted", "token:every") == (log[0]["action"], log[0]["actor"])
    assert log[1:] == added["data"]
    assert [False, True] == [first["done"], rest["done"]]
    assert "must be one of endpoint.added, " in wrong.json()["detail"][0]["msg"]
    assert ["query", "iterator"] == ((await client.get(path, params={"iterator": "x"})).json()["detail"][0]["loc"])


async def test_the_installation_is_counted_for_its_operator(client: httpx.AsyncClient, url: str) -> None:
    await client.post("/api/v1/app/acme/endpoint", json={"url": "https://a.example"})
    status = (await client.get("/api/hookseal/v1/status")).json()
    overview = status["overview"]
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer acme"}) as customer:
        refused = await customer.get("/api/hookseal/v1/status")

    assert (1, 1, 0, 10_000) == (*(overview[name] for name in ("tenants", "endpoints", "pending", "most")),)
    assert [("no_worker", "hookseal worker")] == [(each["kind"], each["command"]) for each in status["mustAct"]]
    first = status["firstAttempts"]
    assert (None, 0, None, 5.0, None) == (
        status["leader"], first["number"], first["p95Seconds"], first["objectiveSeconds"], first["meetsObjective"],
    )  # fmt: skip
    assert (403, "insufficient_access") == (refused.status_code, refused.json()["code"])


async def test_a_process_that_may_not_open_secrets_says_so(
    publisher: Publisher, installation: Installation, environ: dict[str, str]
) -> None:
    """As what an operator must allow; and the log names the role that allows it."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with (
        login(installation.pool, environ["DATABASE_URL"], "hookseal_api") as (_, of_role),
        Admin.connect(of_role, environ=environ) as admin,
        served(app(admin, publisher, who=signed_in)) as url,
        httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer every"}) as client,
    ):
        with capture_logs() as logged:
            refused = await client.get(f"/api/v1/app/acme/endpoint/{endpoint}/secret")

    assert (403, "secret_denied") == (refused.status_code, refused.json()["code"])
    assert ["api.refused"] == [each["event"] for each in logged]
    assert "hookseal_reveal" in logged[0]["reason"]


async def test_a_delivery_is_explained(client: httpx.AsyncClient, admin: Admin, installation: Installation) -> None:
    """In the words of the states; the commands of an operator are not for a customer."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    await admin.endpoints.disable(tenant_id="acme", endpoint_id=added.endpoint_id, reason="it moves", actor="test")
    [ring] = await installation.deliveries()
    answer = await client.get(f"{PATH}/delivery/{ring.delivery_id}/why")

    expected = {
        "deliveryId": ring.delivery_id,
        "state": "pending",
        "waitingFor": "endpoint_disabled",
        "attempts": 0,
        "lastError": "the endpoint is disabled",
    }
    assert expected == {name: answer.json()[name] for name in expected}
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
    await installation.change_token(ended.token_id, expires_at=rows.ago(minutes=1), created_at=rows.ago(hours=1))
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
