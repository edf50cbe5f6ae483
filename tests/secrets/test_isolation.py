"""Isolation of two tenants on the real parts: no call of one reveals, changes or detects anything of the other."""

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import HooksealError
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import producers
from hookseal.postgres.pool import Connection
from hookseal.secrets.endpoint import canary_results, pointer
from tests.doubles.logins import login
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin
from tests.secrets.cross_tenant_calls import CASES, TLS, Asked, proven
from tests.secrets.tenant_functions import functions_with_a_tenant

pytestmark = pytest.mark.req("SEC-08")

Pool = asyncpg.Pool
ACME, RIVAL = TenantId("acme"), TenantId("rival")
NOBODY = EndpointId("01890a5d-ac96-774b-bcce-b302099a8099")

# Functions with a law of their own in test_isolation_laws.py.
BY_PROPERTY = {
    *(
        f"secrets.store.{kind}.{what}"
        for kind in (
            *("port.SecretStore", "dev.DevStore", "postgres.PostgresStore"),
            *("external.ExternalStore", "several.SeveralStores"),
        )
        for what in ("put", "get", "rotate", "versions", "destroy")
    ),
    *(
        f"secrets.store.{kind}.{what}"  # tests/secrets/store/test_provider_laws.py
        for kind in ("port.ProviderApi", "aws.AwsApi", "gcp.GcpApi", "openbao.OpenBaoApi")
        for what in ("write", "read", "remove")
    ),
    *("secrets.store.aws.version_id", "secrets.store.gcp.secret_id"),
    *(f"secrets.core.halves.{what}" for what in ("divide", "divide_again", "join")),  # sealing/test_halves.py
    *(
        "secrets.resolve.reader.SecretReader.read",
        "secrets.resolve.cache.SealedCache.get",
        "secrets.resolve.cache.SealedCache.put",
    ),
    *("operations.deliveries.read_payload", "operations.replay.cancel_replay"),  # tests/admin/test_search.py
    "operations.replay.skip_delivery",  # tests/admin/test_ordered.py
    *("secrets.resolve.cache.SealedCache.drop", "secrets.resolve.cache.encoded"),
    *("secrets.resolve.service.SecretService.signers", "secrets.resolve.service.SecretService.headers"),
    "secrets.resolve.service.SecretService.tls",
    *(
        "secrets.core.envelope.seal",
        "secrets.core.envelope.open_sealed",
        "secrets.core.envelope.rewrapped",
        "secrets.core.ref.SecretContext.of",
    ),
    "secrets.core.trust.require_own",
    *("secrets.core.trust.IntegrityKey.mac", "secrets.core.trust.IntegrityKey.verify"),
}
PURE = {  # computed from a pointer or id that the caller has
    *(
        "secrets.core.overlap.changes_of_end",
        "secrets.core.overlap.require_generation",
        "secrets.core.overlap.require_rotatable",
    ),
    *(
        "secrets.core.overlap.changes_of_rollback",
        "secrets.core.overlap.changes_of_rotation",
        "operations.endpoint.rotation.signing",
    ),
    *("secrets.migrate_secrets.require_sealable", "secrets.move.is_at"),
    *(
        "secrets.core.ref.endpoint_headers_name",
        "secrets.core.ref.endpoint_secret_name",
        "secrets.core.ref.endpoint_tls_name",
    ),
    "secrets.key.compromise.cursor_of",
    *(
        "operations.sending.transport",
        "operations.sending.trust",
        "operations.sending.as_worker",
        "operations.unlocking.unlock_for_changes",
        "operations.unlocking.unwrapped",
        "operations.unlocking.outside",
    ),  # read from the settings, which name tenants
    *("operations.deliveries.checked", "operations.endpoint.values.checked"),
    "secrets.store.port.first_ref",
    *(f"secrets.core.trust.{what}" for what in ("require_epochs", "require_provider", "require_secret")),
    *("secrets.core.trust.require_trusted", "secrets.core.trust.require_trusted_extra"),
    # keyed by tenant and endpoint: tests/secrets/test_freshness.py
    "secrets.core.trust.GenerationsSeen.require_newest",
}
FOR_ALL = {  # pages over all tenants, for maintenance, and an operator's look-up by a unique id
    # only the installation's own secrets are taken over
    *("secrets.store.external.ExternalStore.take_over", "secrets.store.postgres.PostgresStore.take_over"),
    *(
        "secrets.endpoint.schedule.upcoming",
        "secrets.store.retention.ended_overlaps",
        "operations.replay.replay_delivery",
        "operations.deliveries.page",
    ),
}
SAME_FOR_ALL = {
    *("secrets.restore.find_stale", "secrets.restore.find_altered", "secrets.restore.is_lost"),
    *("secrets.restore.missing_material", "secrets.restore.is_deleted", "secrets.restore.destroy_again"),
    "secrets.restore.lock_records",
    *("operations.restore.accept_endpoint", "operations.endpoint.rotation.wait_until_complete"),
    *(f"secrets.store.external.{what}" for what in ("settle", "burn", "add_destroyed")),
    "operations.replay.take_step",  # tests/operations/test_replay_jobs.py::test_a_job_of_another_tenant
}  # the same for every tenant, since nothing is stale, in flight or left over, and no job runs
_VARYING = re.compile(
    r"generation=\d+|datetime\([^)]*\)|mac=b'(?:[^'\\]|\\.)*'|mac=b\"[^\"]*\"|[0-9a-f]{8}-[0-9a-f-]{27}|nobody|acme"
)


def test_every_function_is_covered() -> None:
    """Every function that takes something of a tenant has a case, or is listed with the reason why it needs none."""
    covered = [*CASES, *BY_PROPERTY, *PURE, *FOR_ALL]

    assert len(covered) == len(set(covered))
    assert functions_with_a_tenant("hookseal.secrets", "hookseal.operations") == set(covered)


@dataclass(frozen=True, kw_only=True)
class Two:
    """An installation with two tenants; `own` is the endpoint of acme, and `role` publishes for acme."""

    installation: Installation
    own: EndpointId
    role: str


@pytest.fixture
async def two(begun_pool: "Pool[asyncpg.Record]", database_url: str) -> AsyncIterator[Two]:
    """Yield an installation in which acme and rival have an endpoint each, with headers and in an overlap."""
    installation = await begin(begun_pool)
    ids = []
    for tenant in (RIVAL, ACME):
        new = NewEndpoint(
            tenant_id=tenant, url=f"https://{tenant}.example/hook", event_types=("*",), rotate_every_days=1
        )
        added = await installation.add(new, headers={"x-own": f"value of {tenant}".encode()}, tls=TLS)
        ids.append(added.pointer.endpoint_id)
        await installation.deliveries(tenant)
        for overlap_seconds in (0, 3600) if tenant == RIVAL else (0, 0, 3600):
            await installation.rotate(ids[-1], tenant=tenant, overlap_seconds=overlap_seconds)
    async with login(begun_pool, database_url) as (role, _):
        async with begun_pool.acquire() as connection:
            await canary_results.keep(connection, proven(ACME, ids[-1], generation=2))
            await producers.grant(installation.operator(connection), role, ACME)
        await begun_pool.execute(
            "UPDATE hookseal.endpoints SET secret = 'plaintext of ' || tenant_id,"
            " first_failure_at = now() - interval '6 d', last_failure_at = now()"
        )
        yield Two(installation=installation, own=ids[-1], role=role)


async def owned(connection: Any, tenant: TenantId) -> dict[str, list[str]]:
    """Return every row of the tenant, in every table."""
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
class CaseResult:
    """The result of a case, without values that differ between endpoints, and whether acme's rows changed."""

    text: str
    moved: bool


async def run_case(two: Two, name: str, tenant: TenantId, endpoint: EndpointId) -> CaseResult:
    """Return the result of the case, and roll back what it did."""
    text, moved = "", False
    async with two.installation.pool.acquire() as connection:
        with suppress(_TakenBack):
            async with connection.transaction():
                asked = await asked_for(two, connection, tenant, endpoint)
                before = await owned(connection, ACME)
                try:
                    async with connection.transaction():
                        text = repr(await CASES[name](asked))
                except HooksealError as error:
                    text = f"{type(error).__name__}: {error}"
                moved = before != await owned(connection, ACME)
                raise _TakenBack
    return CaseResult(text=_VARYING.sub("_", text), moved=moved)


async def asked_for(two: Two, connection: Connection, tenant: TenantId, endpoint: EndpointId) -> Asked:
    """Return the call: acme's pointer with this tenant as owner and this endpoint in place of its own."""
    found = await pointer.lock(connection, tenant=ACME, endpoint_id=two.own)
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


async def test_a_call_for_another_tenants_endpoint_does_nothing(two: Two) -> None:
    """A call of rival for acme's endpoint has the result of one for a missing endpoint, and changes nothing of acme."""
    for name in CASES:
        theirs = await run_case(two, name, RIVAL, two.own)
        assert theirs == await run_case(two, name, RIVAL, NOBODY), name
        assert not theirs.moved, name
        assert name in SAME_FOR_ALL or theirs != await run_case(two, name, ACME, two.own), (
            f"{name}: the case cannot distinguish tenants"
        )
