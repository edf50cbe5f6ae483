"""Adding an endpoint stores all of it or nothing: row, secret and audit row."""

import asyncio
import hmac

import asyncpg
import pytest

from hookseal.audit.log import verify
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, Refused, SecretDenied, Unavailable
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.wire import Scheme
from hookseal.operations.endpoint.endpoints import AddedEndpoint, add_endpoint
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import generate_signing_secret
from tests.doubles.logbook import audited
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation

URL = "https://receiver.example/hook"
NEW = NewEndpoint(
    tenant_id=TenantId("acme"),
    url=URL,
    event_types=("invoice.*", "user.created"),
    settings={"name": "Billing", "timeout_ms": 2_500},
)


async def records(installation: Installation) -> int:
    """Return the number of secret records, without the installation's own."""
    found: int = await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.secret_records WHERE tenant_id <> '_system'"
    )
    return found


async def test_the_row_has_the_given_values(installation: Installation) -> None:
    added = await installation.add(NEW)

    row = await installation.pool.fetchrow("SELECT * FROM hookseal.endpoints")
    assert row is not None
    endpoint_id = added.pointer.endpoint_id
    ref = f"db:acme:webhook-endpoint-{endpoint_id}:1"
    assert ("acme", URL, ["invoice.*", "user.created"], "Billing", 2_500, True, "standard", "hmac") == tuple(
        row[name]
        for name in ("tenant_id", "url", "event_types", "name", "timeout_ms", "enabled", "scheme", "algorithm")
    )
    assert (endpoint_id, ref, "db", 1, None, added.pointer.mac) == (
        str(row["id"]),
        *(row[name] for name in ("secret_ref", "secret_provider", "generation", "secret", "mac")),
    )
    installation.unlocked.integrity.verify(added.pointer)
    record = await installation.pool.fetchrow("SELECT * FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    assert record is not None
    assert (endpoint_secret_name(endpoint_id), 1, "active", "standard") == tuple(
        record[name] for name in ("name", "version", "state", "scheme")
    )
    assert added.secret.reveal() not in record["sealed"]


async def test_a_given_or_generated_secret_signs(installation: Installation) -> None:
    given = generate_signing_secret()
    added = [
        await installation.add(replace(NEW, url=f"{URL}/{number}"), secret)
        for number, secret in enumerate((given, None, None))
    ]
    kept = [
        await installation.unlocked.store.get(
            SecretRef.parse(each.pointer.secret_ref or ""), purpose=Purpose.WEBHOOK_SIGNING
        )
        for each in added
    ]

    assert given == kept[0]
    assert [each.secret for each in added] == kept
    assert 3 == len({each.reveal() for each in kept})


async def test_a_url_in_use_is_a_conflict(installation: Installation) -> None:
    await installation.endpoint(url=URL)
    with pytest.raises(Conflict) as caught:
        await installation.endpoint(url=URL)

    assert "url" == caught.value.field
    assert (1, 1) == (
        await records(installation),
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
    )


async def test_several_endpoints_share_a_url_if_asked(installation: Installation) -> None:
    """Each that asks for it may have the url of another, also at the same moment; who does not ask is refused."""
    asked = replace(NEW, url=URL, shares_url=True)
    await asyncio.gather(*(installation.add(asked) for _ in range(3)))
    with pytest.raises(Conflict):
        await installation.endpoint(url=URL)

    assert 3 == await records(installation)


async def test_who_asks_may_move_to_the_url_of_another(installation: Installation) -> None:
    """An update to the url of another endpoint is refused unless asked, also if it shared its url before."""
    first, second = [(await installation.endpoint(url=f"{URL}/{n}")).pointer.endpoint_id for n in (1, 2)]

    async def move(endpoint: EndpointId, url: str, *, shares_url: bool) -> None:
        change = {"url": url}
        await installation.act(
            update_endpoint, TenantId("acme"), endpoint, change, own_drain_seconds=25, shares_url=shares_url
        )

    with pytest.raises(Conflict):
        await move(second, f"{URL}/1", shares_url=False)
    await move(second, f"{URL}/1", shares_url=True)
    await move(second, f"{URL}/2", shares_url=False)
    with pytest.raises(Conflict):
        await move(second, f"{URL}/1", shares_url=False)
    await move(first, f"{URL}/2", shares_url=True)
    assert f"{URL}/2" == (await installation.pointer(first)).url == (await installation.pointer(second)).url


async def test_of_concurrent_additions_one_succeeds(installation: Installation) -> None:
    ended = await asyncio.gather(*(installation.endpoint(url=URL) for _ in range(6)), return_exceptions=True)

    assert [Conflict] * 5 == [type(each) for each in ended if not isinstance(each, AddedEndpoint)]
    assert 1 == await records(installation)


@pytest.mark.req("SEC-08")
async def test_two_tenants_share_a_url(installation: Installation) -> None:
    acme, globex = [await installation.endpoint(tenant, url=URL) for tenant in ("acme", "globex")]

    assert acme.secret != globex.secret
    assert ["db:acme:", "db:globex:"] == [
        (each.pointer.secret_ref or "").partition("webhook")[0] for each in (acme, globex)
    ]
    stolen = replace(globex.pointer, secret_ref=acme.pointer.secret_ref)
    signed = replace(stolen, mac=installation.unlocked.integrity.mac(stolen))
    with pytest.raises(SecretDenied):
        async with installation.unlocked.service.signers(signed):
            pass


async def test_without_a_secret_there_is_no_endpoint(installation: Installation) -> None:
    await installation.pool.execute("ALTER TABLE hookseal.secret_records ADD CHECK (tenant_id <> 'acme')")
    with pytest.raises(asyncpg.CheckViolationError):
        await installation.endpoint(url=URL)

    assert (0, 0) == (
        await records(installation),
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
    )


async def test_an_addition_joins_the_callers_transaction(installation: Installation) -> None:
    async with installation.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await add_endpoint(installation.operator(connection), NEW, None, own_drain_seconds=25)
        assert 0 == await records(installation)
        await transaction.rollback()

    assert (0, 0) == (
        await records(installation),
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
    )


async def test_a_closed_connection_is_unavailable(installation: Installation, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    with pytest.raises(Unavailable):
        await add_endpoint(installation.operator(connection), NEW, None, own_drain_seconds=25)


@pytest.mark.req("OPS-10")
async def test_an_addition_is_audited_without_its_secret(installation: Installation) -> None:
    new = replace(
        NEW,
        url="https://receiver.example:8443/hook?token=hunter2",
        settings=NEW.settings | {"retry_schedule": (5, 300)},
    )
    added = await installation.add(new)

    (row,) = await audited(installation.pool)
    assert {
        "action": "endpoint.added",
        "subject": f"endpoint:{added.pointer.endpoint_id}",
        "who": "ada@desk",
        "before": None,
        "after": {
            "host": "receiver.example",
            "event_types": ["invoice.*", "user.created"],
            "channels": [],
            "name": "Billing",
            "uid": None,
            "has_description": False,
            "metadata_keys": [],
            "timeout_ms": 2_500,
            "max_attempts": 10,
            "backoff_base_seconds": 30,
            "backoff_cap_seconds": 43_200,
            "retry_schedule": [5, 300],
            "concurrency": None,
            "rate": None,
            "ordered": False,
            "on_dead_letter": "stop",
            "rotate_every_days": None,
            "scheme": "standard",
            "algorithm": "hmac",
            "generation": 1,
            "secret_ref": added.pointer.secret_ref,
            "header_names": [],
            "headers_ref": None,
            "tls": None,
            "tls_ref": None,
            "key_id": await installation.unlocked.sealing_key_id(installation.pool),
        },
    } == row
    (result,) = await verify(installation.pool, installation.unlocked.integrity, tenant=TenantId("acme"))
    assert (1, None) == (result.rows, result.broken)


@pytest.mark.req("OPS-10")
async def test_without_its_audit_row_nothing_is_changed(installation: Installation) -> None:
    await installation.endpoint(url=f"{URL}/first")
    await installation.pool.execute("UPDATE hookseal.audit_heads SET sequence = 0")
    with pytest.raises(Refused):
        await installation.endpoint(url=URL)

    assert (1, 1) == (
        await records(installation),
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
    )


@pytest.mark.req("DEL-04", part="x-webhook")
async def test_an_x_webhook_endpoint_signs_in_its_scheme(installation: Installation) -> None:
    secret = SecretMaterial("sechzehn Bytes äö".encode())
    added = await installation.add(replace(NEW, scheme=Scheme.X_WEBHOOK), secret)

    assert "x-webhook" == added.pointer.scheme
    installation.unlocked.integrity.verify(added.pointer)
    assert ("x-webhook", "x-webhook") == (
        await installation.pool.fetchval("SELECT scheme FROM hookseal.endpoints"),
        await installation.pool.fetchval("SELECT scheme FROM hookseal.secret_records WHERE tenant_id = 'acme'"),
    )
    async with installation.unlocked.service.signers(added.pointer) as (signer,):
        assert "sha256=" + hmac.digest(secret.reveal(), b"x", "sha256").hex() == signer.sign(b"x")


async def test_retries_are_stored(installation: Installation) -> None:
    """The retry settings are stored in the row: back-off, a schedule, or the default schedule of about three days."""
    await installation.add(
        replace(NEW, settings={"max_attempts": 3, "backoff_base_seconds": 1, "backoff_cap_seconds": 2})
    )
    await installation.add(replace(NEW, url=f"{URL}/2", settings={"retry_schedule": (1, 604_800)}))
    await installation.add(replace(NEW, url=f"{URL}/3", settings={"retry_schedule": None}))
    await installation.add(replace(NEW, url=f"{URL}/4"))
    rows = await installation.pool.fetch(
        "SELECT max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, attempts_allowed"
        " FROM hookseal.endpoints ORDER BY id"
    )

    default = [5, 30, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert [
        (3, 1, 2, None, 3),
        (10, 30, 43_200, [1, 604_800], 3),
        (10, 30, 43_200, None, 10),
        (10, 30, 43_200, default, 11),
    ] == [tuple(row) for row in rows]


@pytest.mark.parametrize(("silent_seconds", "longest"), [(0, 5_000), (31, 20_000)])
async def test_a_time_out_must_fit_the_shortest_live_drain(
    installation: Installation, silent_seconds: int, longest: int
) -> None:
    await installation.pool.executemany(
        "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, beaten_at)"
        " VALUES ($1, '1', $2, 90, '{}', now() - make_interval(secs => $3))",
        [("w-1", 10, silent_seconds), ("w-2", 60, silent_seconds)],
    )
    await installation.act(add_endpoint, replace(NEW, settings={"timeout_ms": longest}), None, own_drain_seconds=25)
    with pytest.raises(Refused, match=f"at most {longest} ms"):
        await installation.act(
            add_endpoint, replace(NEW, settings={"timeout_ms": longest + 1}), None, own_drain_seconds=25
        )
