"""Adding an endpoint is all or nothing, across both rooms."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.errors import Conflict, Unavailable
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoints import AddedEndpoint, add_endpoint
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretDenied
from hookseal.secrets.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.signer import generate_signing_secret
from tests.doubles.stored import Installation, begin

Pool = asyncpg.Pool
URL = "https://receiver.example/hook"
NEW = NewEndpoint(
    tenant_id=TenantId("acme"), url=URL, event_types=("invoice.*", "user.created"), name="Billing", timeout_ms=2_500
)


@pytest.fixture
async def installation(pool: "Pool[asyncpg.Record]") -> Installation:
    """Return a begun installation."""
    return await begin(pool)


async def records(installation: Installation) -> int:
    """Return how many secret records there are besides the installation's own."""
    found: int = await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.secret_records WHERE tenant_id <> '_system'"
    )
    return found


async def test_what_is_stored(installation: Installation) -> None:
    """The row holds what was decided, the ref of a sealed record of its own, and a MAC that holds; no plaintext."""
    async with installation.pool.acquire() as connection:
        added = await add_endpoint(connection, installation.unlocked, NEW, None)

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


async def test_the_secret_signs(installation: Installation) -> None:
    """The given secret is kept byte for byte; without one, each endpoint gets a fresh one of its own."""
    given = generate_signing_secret()
    added: list[AddedEndpoint] = []
    async with installation.pool.acquire() as connection:
        for number, secret in enumerate((given, None, None)):
            endpoint = replace(NEW, url=f"{URL}/{number}")
            added.append(await add_endpoint(connection, installation.unlocked, endpoint, secret))
    kept = [
        await installation.unlocked.store.get(
            SecretRef.parse(each.pointer.secret_ref or ""), purpose=Purpose.WEBHOOK_SIGNING
        )
        for each in added
    ]

    assert given == kept[0]
    assert [each.secret for each in added] == kept
    assert 3 == len({each.reveal() for each in kept})


async def test_the_same_url_twice(installation: Installation) -> None:
    """A tenant has one endpoint for a url: the second is a conflict, and leaves neither row nor secret."""
    await installation.endpoint(url=URL)
    with pytest.raises(Conflict) as told:
        await installation.endpoint(url=URL)

    assert "url" == told.value.field
    assert (1, 1) == (
        await records(installation),
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
    )


async def test_the_same_url_at_the_same_time(installation: Installation) -> None:
    """Of many that add one url at the same time, one does, and one secret is kept."""
    ended = await asyncio.gather(*(installation.endpoint(url=URL) for _ in range(6)), return_exceptions=True)

    assert [Conflict] * 5 == [type(each) for each in ended if not isinstance(each, AddedEndpoint)]
    assert 1 == await records(installation)


@pytest.mark.req("SEC-08")
async def test_two_tenants_share_a_url(installation: Installation) -> None:
    """Two tenants may have one url; each signs with its own secret, and neither pointer serves the other."""
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


async def test_all_or_nothing(installation: Installation) -> None:
    """If its secret cannot be kept, the endpoint is not there either."""
    await installation.pool.execute("ALTER TABLE hookseal.secret_records ADD CHECK (tenant_id <> 'acme')")
    with pytest.raises(asyncpg.CheckViolationError):
        await installation.endpoint(url=URL)

    assert (0, 0) == (
        await records(installation),
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
    )


async def test_inside_the_callers_transaction(installation: Installation) -> None:
    """In a caller's transaction nothing is there until that commits, and nothing if it does not."""
    async with installation.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await add_endpoint(connection, installation.unlocked, NEW, None)
        assert 0 == await records(installation)
        await transaction.rollback()

    assert (0, 0) == (
        await records(installation),
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
    )


async def test_an_outage(installation: Installation, database_url: str) -> None:
    """A connection that is gone is `Unavailable`."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    with pytest.raises(Unavailable):
        await add_endpoint(connection, installation.unlocked, NEW, None)
