"""Two tenants on the real parts: nothing that one asks reveals the other's, changes it, or tells that it is there."""

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.errors import HooksealError
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import producers, rotation
from hookseal.schema.database import Connection
from hookseal.secrets import evidence, pointer
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret
from tests.doubles.logins import login
from tests.doubles.stored import Installation, begin
from tests.secrets.asked_for_another import CASES, TLS, Asked, proven
from tests.secrets.tenant_takers import tenant_takers

pytestmark = pytest.mark.req("SEC-08")

Pool = asyncpg.Pool
ACME, RIVAL = TenantId("acme"), TenantId("rival")
NOBODY = EndpointId("01890a5d-ac96-774b-bcce-b302099a8099")

# What has a law of its own in test_isolation_laws.py; and what reads no row of a tenant, or of all tenants alike.
BY_PROPERTY = {
    *(
        f"secrets.store{kind}.{what}"
        for kind in (".SecretStore", "s.dev.DevStore", "s.postgres.PostgresStore")
        for what in ("put", "get", "rotate", "versions", "destroy")
    ),
    *("secrets.reader.SecretReader.read", "secrets.cache.SealedCache.get", "secrets.cache.SealedCache.put"),
    *("secrets.cache.SealedCache.drop", "secrets.cache.spelled"),
    *("secrets.service.SecretService.signers", "secrets.service.SecretService.headers"),
    *("secrets.service.SecretService.tls", "secrets.pointer.require_own_tls"),
    *(
        "secrets.envelope.seal",
        "secrets.envelope.open_sealed",
        "secrets.envelope.rewrapped",
        "secrets.context.SecretContext.of",
    ),
    *("secrets.pointer.require_own", "secrets.pointer.require_own_headers"),
    *("secrets.integrity.IntegrityKey.mac", "secrets.integrity.IntegrityKey.verify"),
}
PURE = {  # of one pointer, or one id, that the caller has
    *("secrets.overlap.ended", "secrets.overlap.require_generation", "secrets.overlap.require_rotatable"),
    *("secrets.overlap.rolled_back", "secrets.overlap.rotated", "operations.rotation.signing"),
    "secrets.migration.require_sealable",
    *("secrets.ref.endpoint_headers_name", "secrets.ref.endpoint_secret_name", "secrets.ref.endpoint_tls_name"),
    "secrets.compromise.cursor_of",
    *("operations.sending.transport", "operations.sending.trust"),  # of the settings, which name tenants
    *("secrets.store.first_ref", "secrets.store.require_provider"),
    "secrets.seen.GenerationsSeen.require_newest",  # keyed by tenant and endpoint: tests/secrets/test_seen.py
}
FOR_ALL = {  # pages over all tenants, for housekeeping; and an operator's look by an id that is unique
    *("secrets.schedule.near", "secrets.retention.run_out", "operations.replay.replay_delivery"),
}
SAME_FOR_ALL = {
    *("secrets.put_back.found", "secrets.put_back.altered", "secrets.put_back.is_lost"),
    *("secrets.put_back.gone", "secrets.put_back.is_deleted", "secrets.put_back.destroy_again"),
    *("operations.restore.accept_endpoint", "operations.rotation.completed"),
}  # where nothing was put back, or is in flight
_VARYING = re.compile(
    r"generation=\d+|datetime\([^)]*\)|mac=b'(?:[^'\\]|\\.)*'|mac=b\"[^\"]*\"|[0-9a-f]{8}-[0-9a-f-]{27}|nobody|acme"
)


def test_every_function_is_covered() -> None:
    """Whatever takes a tenant, or what is a tenant's, has a case here, or is listed with why it needs none."""
    covered = [*CASES, *BY_PROPERTY, *PURE, *FOR_ALL]

    assert len(covered) == len(set(covered))
    assert tenant_takers("hookseal.secrets", "hookseal.operations") == set(covered)


@dataclass(frozen=True, kw_only=True)
class Two:
    """An installation with two tenants: the endpoint of acme, and a database role that publishes for acme."""

    installation: Installation
    own: EndpointId
    role: str


@pytest.fixture
async def two(pool: "Pool[asyncpg.Record]", database_url: str) -> AsyncIterator[Two]:
    """Yield an installation in which acme and rival have an endpoint each, with headers and in an overlap."""
    installation = await begin(pool)
    ids = []
    for tenant in (RIVAL, ACME):
        new = NewEndpoint(
            tenant_id=tenant, url=f"https://{tenant}.example/hook", event_types=("*",), rotate_every_days=1
        )
        added = await installation.add(new, headers={"x-own": f"value of {tenant}".encode()}, tls=TLS)
        ids.append(added.pointer.endpoint_id)
        await installation.deliveries(tenant)
        for overlap_seconds in (0, 3600) if tenant == RIVAL else (0, 0, 3600):
            await rotated(installation, tenant, ids[-1], overlap_seconds=overlap_seconds)
    async with login(pool, database_url) as (role, _):
        async with pool.acquire() as connection:
            await evidence.keep(connection, proven(ACME, ids[-1], generation=2))
            await producers.grant(installation.operator(connection), role, ACME)
        await pool.execute("UPDATE hookseal.endpoints SET secret = 'plaintext of ' || tenant_id")
        yield Two(installation=installation, own=ids[-1], role=role)


async def rotated(installation: Installation, tenant: TenantId, endpoint: EndpointId, *, overlap_seconds: int) -> None:
    """Rotate the endpoint's secret."""
    wanted = Wanted(
        tenant_id=tenant, endpoint_id=endpoint, overlap_seconds=overlap_seconds, secret=generate_signing_secret()
    )
    async with installation.pool.acquire() as connection:
        await rotation.rotate(installation.operator(connection), wanted)


async def owned(connection: Any, tenant: TenantId) -> dict[str, list[str]]:
    """Return every row that is the tenant's, in every table."""
    tables = await connection.fetch(
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = 'hookseal' AND column_name = 'tenant_id'"
    )
    found = {}
    for table in sorted(row["table_name"] for row in tables):
        rows = await connection.fetch(
            f"SELECT t::text AS row FROM hookseal.{table} AS t WHERE tenant_id = $1 ORDER BY 1",  # noqa: S608 -- ours
            tenant,
        )
        found[table] = [row["row"] for row in rows]
    return found


class _TakenBack(Exception):
    pass


@dataclass(frozen=True, kw_only=True)
class Came:
    """What a case came to, without what differs from one endpoint to the other, and whether acme's rows moved."""

    said: str
    moved: bool


async def came(two: Two, name: str, tenant: TenantId, endpoint: EndpointId) -> Came:
    """Return what the case comes to, and take back what it did."""
    said, moved = "", False
    async with two.installation.pool.acquire() as connection:
        with suppress(_TakenBack):
            async with connection.transaction():
                asked = await asked_for(two, connection, tenant, endpoint)
                before = await owned(connection, ACME)
                try:
                    async with connection.transaction():
                        said = repr(await CASES[name](asked))
                except HooksealError as error:
                    said = f"{type(error).__name__}: {error}"
                moved = before != await owned(connection, ACME)
                raise _TakenBack
    return Came(said=_VARYING.sub("_", said), moved=moved)


async def asked_for(two: Two, connection: Connection, tenant: TenantId, endpoint: EndpointId) -> Asked:
    """Return the question: the pointer is acme's, with this owner, and this endpoint wherever it named its own."""
    found = await pointer.locked(connection, tenant=ACME, endpoint_id=two.own)
    refs: dict[str, Any] = {
        column: str(getattr(found, column)).replace(two.own, endpoint)
        for column in ("secret_ref", "previous_secret_ref", "headers_ref", "tls_ref")
    }
    return Asked(
        operator=two.installation.operator(connection),
        role=two.role,
        tenant=tenant,
        endpoint=endpoint,
        pointer=replace(found, tenant_id=tenant, endpoint_id=endpoint, **refs),
        url="https://acme.example/hook" if endpoint == two.own else "https://nobody.example/hook",
    )


async def test_asked_for_another_tenants(two: Two) -> None:
    """Asked for acme's endpoint in the name of rival, all answer as for one that is nobody's, and move nothing."""
    for name in CASES:
        theirs = await came(two, name, RIVAL, two.own)
        assert theirs == await came(two, name, RIVAL, NOBODY), name
        assert not theirs.moved, name
        assert name in SAME_FOR_ALL or theirs != await came(two, name, ACME, two.own), f"{name} tells nothing"
