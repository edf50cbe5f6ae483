"""A process without a master key, as its SQL role: what it answers, and that it can do no more."""

from collections.abc import AsyncIterator
from typing import Final

import httpx
import pytest

from hookseal import Admin, Publisher
from hookseal.api import app
from hookseal.api.call import Call
from hookseal.api.calls import CALLS
from tests import rows
from tests.api.conftest import signed_in
from tests.api.test_isolation import BODIES
from tests.doubles.applications import served
from tests.doubles.logins import login
from tests.doubles.stored import Installation
from tests.operations.test_replay_jobs import dead_letters, started

PUBLISHES: Final = {"message.create", "hookseal.message.create_many"}
# These read the bodies of events, unless the request asks for none.
SHOWS_BODIES: Final = {"message.list", "message.get", "message_attempt.list_attempted_messages"}
# These read, and open a secret for it.
OPENS: Final = {"endpoint.get_secret", "operational_webhook.endpoint.get_secret", "hookseal.public_keys"}
_CHANGED: Final = """
SELECT concat((SELECT array_agg(e ORDER BY e.id) FROM hookseal.endpoints AS e),
              (SELECT array_agg(t ORDER BY t.name) FROM hookseal.api_tokens AS t),
              (SELECT array_agg(t ORDER BY t.name) FROM hookseal.event_types AS t),
              (SELECT array_agg(t ORDER BY t.tenant_id) FROM hookseal.tenants AS t),
              (SELECT array_agg(r ORDER BY r.id) FROM hookseal.replays AS r),
              (SELECT array_agg(s ORDER BY s.tenant_id, s.name, s.version) FROM hookseal.secret_records AS s),
              (SELECT array_agg(k ORDER BY k.key_digest) FROM hookseal.idempotency_keys AS k),
              (SELECT count(*) FROM hookseal.audit_log))
"""


@pytest.fixture
async def keyless(
    installation: Installation, admin: Admin, environ: dict[str, str]
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that may do everything, of a process without a master key that has the role for that."""
    async with login(installation.pool, environ["DATABASE_URL"], "hookseal_api_publisher") as (role, url):
        await admin.producers.grant(role=role, tenant_id="*", actor="the tests")
        plain = {name: value for name, value in environ.items() if not name.startswith("SECRETS_")}
        async with (
            Admin.connect(url, environ=plain) as without_key,
            Publisher.connect(url, "") as publisher,
            served(app(without_key, publisher, who=signed_in)) as address,
            httpx.AsyncClient(base_url=address, headers={"authorization": "Bearer every"}) as client,
        ):
            yield client


async def made(installation: Installation, admin: Admin) -> dict[str, str]:
    """Make one of everything that a path names, and return the names."""
    by = "the tests"
    await admin.endpoints.add(
        tenant_id="acme", url="https://a.example", event_types=["*"], algorithm="ed25519", actor=by
    )
    [delivery] = await dead_letters(installation, 1)
    await rows.attempt(installation.pool, delivery)
    found = await admin.deliveries.get(tenant_id="acme", delivery_id=str(delivery))
    await admin.event_types.add(name="known", description="", actor=by)
    await admin.tokens.add(name="known", tenant_id="acme", actor=by)
    return {
        "app_id": "acme",
        "attempt_id": f"{delivery}.1",
        "delivery_id": str(delivery),
        "endpoint_id": found.endpoint_id,
        "event_type_name": "known",
        "msg_id": found.event_id,
        "task_id": f"acme.{(await started(installation)).replay_id}",
        "token_name": "known",
    }


def expected(call: Call) -> tuple[int, str | None]:
    """Return the status of the answer, and the code of a refusal."""
    if call.name in PUBLISHES or (call.method == "GET" and call.name not in OPENS):
        return call.status, None
    return 403, "no_master_key"


@pytest.mark.req("API-09", part="without-keys")
async def test_without_a_master_key_each_call_reads_publishes_or_is_refused(
    installation: Installation, admin: Admin, keyless: httpx.AsyncClient
) -> None:
    """What is refused changes nothing. The body of an event is refused, too."""
    names = await made(installation, admin)
    operators = await admin.endpoints.add(
        tenant_id="_operator", url="https://o.example", event_types=["endpoint.disabled"], actor="the tests"
    )
    before, wrong = await installation.pool.fetchval(_CHANGED), []
    for call in (call for call in CALLS if call.name != "authentication.logout"):  # only for the token of a portal
        of_operator = call.name.startswith("operational_webhook")
        path = call.path.format(**(names | ({"endpoint_id": operators.endpoint_id} if of_operator else {})))
        shows_bodies = call.name in SHOWS_BODIES
        answers = [(expected(call), {"with_content": "false"} if shows_bodies else {})]
        answers += [((403, "no_master_key"), {})] if shows_bodies else []
        for wanted, query in answers:
            # A refused request leaves no key, either.
            keyed = {"idempotency-key": call.name} if call.method == "POST" and call.name not in PUBLISHES else {}
            response = await keyless.request(call.method, path, params=query, json=BODIES.get(call.name), headers=keyed)
            code = response.json().get("code") if response.is_error else None
            if (response.status_code, code) != wanted:
                wrong.append((call.name, query, response.status_code, response.text))

    assert [] == wrong
    assert before == await installation.pool.fetchval(_CHANGED)
