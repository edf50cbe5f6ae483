"""`Admin.once`: the changes of a request and the record of its result are one transaction, made once for a key."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from hookseal import Admin
from hookseal.dispatcher.store import idempotency
from hookseal.dispatcher.store.idempotency import FirstAnswer, KeyedRequest, keyed
from hookseal.errors import Conflict, Defect, HooksealError, NotFound, Refused, Unavailable
from hookseal.ground.ids import TenantId
from tests.admin.refusals import refused_field
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.openbao import ROOT_TOKEN, openbao
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked

pytestmark = [pytest.mark.req("API-05"), pytest.mark.req("DEL-18")]

JANE: Final = "jane@product.example"
NEW: Final[dict[str, Any]] = {
    "tenant_id": "acme",
    "url": "https://receiver.example",
    "event_types": ["*"],
    "actor": JANE,
}
REQUEST: Final[dict[str, Any]] = {
    "idempotency_key": "key of a client",
    "call": "endpoint.create",
    "content": b'{"password": "hunter2"}',
    "tenant_id": "acme",
    "actor": JANE,
}


def request(key: str = "key", content: bytes = b"content") -> KeyedRequest:
    return keyed(key, content, tenant_id=TenantId("acme"), actor=JANE, call="endpoint.create")


async def made(admin: Admin, **changes: Any) -> FirstAnswer:
    """Add an endpoint once, and return what is recorded."""
    async with admin.once(**REQUEST | changes) as once:
        if once.first is not None:
            return once.first
        added = await once.admin.endpoints.add(**NEW)
        await once.record(status=201, result_id=added.endpoint_id)
    return FirstAnswer(status=201, result_id=added.endpoint_id)


async def failed(
    admin: Admin, until: Callable[[], Awaitable[None]] | None = None, begun: asyncio.Event | None = None
) -> None:
    """Do the same, and fail afterwards; before that wait `until` another one waits for it."""
    async with admin.once(**REQUEST) as once:
        added = await once.admin.endpoints.add(**NEW)
        await once.record(status=201, result_id=added.endpoint_id)
        if begun is not None and until is not None:
            begun.set()
            await until()
        raise NotFound


async def left(installation: Installation) -> tuple[int, int, list[str]]:
    """Return how many endpoints and keys there are, and the actions of the audit log."""
    return (
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.idempotency_keys"),
        [row["action"] for row in await audited(installation.pool)],
    )


@pytest.mark.pure
def test_a_fingerprint_is_of_the_key_and_the_content() -> None:
    """Who reads it has no key, so cannot try out what the content was."""
    first = request()
    assert first == request()
    assert (first.key_digest, True) == (
        (other := request(content=b"other")).key_digest,
        first.fingerprint != other.fingerprint,
    )
    assert not {first.key_digest, first.fingerprint} & {(other := request("other")).key_digest, other.fingerprint}
    assert "fingerprint" not in repr(first)


async def test_a_request_is_made_once(admin: Admin, installation: Installation) -> None:
    first = await made(admin)

    assert first == await made(admin)
    assert (1, 1, ["endpoint.added"]) == await left(installation)


async def test_an_error_undoes_everything_and_the_key_is_free(admin: Admin, installation: Installation) -> None:
    with pytest.raises(NotFound):
        await failed(admin)
    assert (0, 0, []) == await left(installation)
    with pytest.raises(Defect, match="without a record"):
        async with admin.once(**REQUEST) as once:
            await once.admin.endpoints.add(**NEW)
    assert (0, 0, []) == await left(installation)
    await made(admin)


async def test_a_refused_change_is_undone_alone(admin: Admin, installation: Installation) -> None:
    """As for a caller with a transaction of its own: what follows is committed."""
    async with admin.once(**REQUEST) as once:
        added = await once.admin.endpoints.add(**NEW)
        with pytest.raises(Conflict):
            await once.admin.endpoints.add(**NEW)
        with pytest.raises(NotFound):
            await once.admin.replays.start(tenant_id="acme", actor=JANE)
        assert (
            added.endpoint_id
            == (await once.admin.endpoints.find(tenant_id="acme", endpoint_id=added.endpoint_id)).endpoint_id
        )
        with pytest.raises(NotFound):  # nobody else sees it before the commit
            await admin.endpoints.find(tenant_id="acme", endpoint_id=added.endpoint_id)
        await once.record(status=201, result_id=added.endpoint_id)

    assert (1, 1, ["endpoint.added"]) == await left(installation)


async def test_what_differs_is_refused(admin: Admin, installation: Installation) -> None:
    """Another content and another call; a key of another actor or tenant is another key."""
    await made(admin)
    for other in ({"content": b""}, {"call": "endpoint.other"}):
        with pytest.raises(Conflict) as caught:
            await made(admin, **other)
        assert "idempotency_key" == caught.value.field
    for other in ({"actor": "john@product.example"}, {"tenant_id": "*"}, {"tenant_id": "globex"}):
        async with admin.once(**REQUEST | other) as once:
            assert once.first is None
            await once.record(status=200, result_id="nothing")

    assert (1, 4, ["endpoint.added"]) == await left(installation)
    for wrong in ({"idempotency_key": ""}, {"idempotency_key": "é"}, {"tenant_id": "_operator"}, {"actor": ""}):
        assert {*wrong} == {await refused_field(made(admin, **wrong))}


async def test_a_second_request_waits_for_the_first(admin: Admin, installation: Installation) -> None:
    async with admin.once(**REQUEST) as once:
        second = asyncio.create_task(made(admin))
        await blocked(installation)
        added = await once.admin.endpoints.add(**NEW)
        await once.record(status=201, result_id=added.endpoint_id)
    assert FirstAnswer(status=201, result_id=added.endpoint_id) == await second


async def test_a_request_that_waited_for_a_failed_one_is_the_first(admin: Admin, installation: Installation) -> None:
    begun = asyncio.Event()
    failing = asyncio.create_task(failed(admin, lambda: blocked(installation), begun))
    await begun.wait()
    await made(admin)
    with pytest.raises(NotFound):
        await failing

    assert (1, 1, ["endpoint.added"]) == await left(installation)


async def test_the_wait_is_bounded(installation: Installation) -> None:
    async with (
        installation.pool.acquire() as holder,
        installation.pool.acquire() as waiting,
        holder.transaction(),
        waiting.transaction(),
    ):
        assert await idempotency.claim(holder, request()) is None
        await waiting.execute("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(Unavailable, match="lock_timeout"):
            await idempotency.claim(waiting, request())


async def test_what_needs_connections_of_its_own_is_no_part(admin: Admin) -> None:
    async with admin.once(**REQUEST) as once:
        with pytest.raises(Defect, match="connections of its own"):
            await once.admin.secrets.move(to="db", actor=JANE)
        await once.record(status=200, result_id="nothing")


@pytest.mark.timeout(300)
async def test_secrets_outside_postgresql_are_those_of_what_was_made(
    installation: Installation, environ: dict[str, str]
) -> None:
    """Many at once, each repeated: one secret for each. What one wrote that failed is left over, and removed later."""
    async with openbao() as server:
        outside = {"SECRETS_PROVIDER": "openbao", "SECRETS_ALSO_READ": "openbao", "BAO_ADDR": server.url}
        async with Admin.connect(environ=environ | outside | {"BAO_TOKEN": ROOT_TOKEN}) as admin:

            async def one(number: int) -> str:
                async with admin.once(**REQUEST | {"idempotency_key": f"key {number % 6}"}) as once:
                    if once.first is not None:
                        return once.first.result_id
                    added = await once.admin.endpoints.add(**NEW | {"url": f"https://receiver.example/{number % 6}"})
                    await once.record(status=201, result_id=added.endpoint_id)
                    return added.endpoint_id

            made_by = await asyncio.gather(*map(one, range(12)))
            with pytest.raises(NotFound):
                await failed(admin)
            shown = await admin.secrets.versions(tenant_id="acme", endpoint_id=made_by[0])

    assert (6, made_by[:6]) == (len(set(made_by)), made_by[6:])
    assert [f"openbao:acme:webhook-endpoint-{made_by[0]}:1"] == [version.ref for version in shown]
    records = await installation.pool.fetchval("SELECT count(*) FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    begun = await installation.pool.fetchval("SELECT count(*) FROM hookseal.secret_leftovers WHERE why = 'begun'")
    assert (6, 1) == (records, begun)


@pytest.mark.req("OPS-10")
async def test_who_may_manage_may_keep_keys(installation: Installation, environ: dict[str, str]) -> None:
    said = {}
    for role in ("operator", "api", "worker", "readonly"):
        async with (
            login(installation.pool, environ["DATABASE_URL"], f"hookseal_{role}") as (_, url),
            Admin.connect(url, environ=environ) as admin,
        ):
            try:
                async with admin.once(**REQUEST | {"idempotency_key": role}) as once:
                    await once.record(status=200, result_id="nothing")
                said[role] = "works"
            except HooksealError as error:
                said[role] = type(error).__name__

    refused = Refused.__name__
    assert {"operator": "works", "api": "works", "worker": refused, "readonly": refused} == said
