"""No tenant reaches what belongs to another: each call by a table, and each store and cache by a property."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import HooksealError, SecretDenied, SecretNotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import producers
from hookseal.postgres.pool import Connection, Pool
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_headers_name, endpoint_secret_name
from hookseal.secrets.endpoint import canary_results, pointer
from hookseal.secrets.key import keys
from hookseal.secrets.resolve.reader import SecretReader, Statistics
from hookseal.secrets.resolve.service import SecretService
from hookseal.secrets.store.dev import DevStore
from hookseal.secrets.store.port import SecretStore
from hookseal.secrets.store.postgres import PostgresStore
from tests.doubles.logins import login
from tests.doubles.providers import external, google_api
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin
from tests.secrets.cross_tenant_calls import CASES, TLS, Asked, functions_with_a_tenant, proven
from tests.secrets.doubles import ScriptedStore, reader_on
from tests.secrets.samples import BARE, ENDPOINT, INTEGRITY, OTHER_ENDPOINT, RING, TENANT, register, signed

pytestmark = pytest.mark.req("SEC-08")


ACME, RIVAL = TenantId("acme"), TenantId("rival")
NOBODY = EndpointId("01890a5d-ac96-774b-bcce-b302099a8099")

# Functions with a law of their own below, or in the module of their subject.
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
    *(f"secrets.core.halves.{what}" for what in ("divide", "divide_again", "join")),  # test_sealing.py
    *(
        "secrets.resolve.reader.SecretReader.read",
        "secrets.resolve.cache.SealedCache.get",
        "secrets.resolve.cache.SealedCache.put",
    ),
    "operations.move_secrets.move_all",  # tests/cli/secret/test_move.py moves one tenant, and leaves the others
    *("operations.deliveries.read_payload", "operations.deliveries.read_payloads"),  # tests/admin/test_search.py
    *("operations.replay.cancel_replay", "operations.replay.resend_delivery"),  # tests/admin/test_search.py
    "operations.replay.skip_delivery",  # tests/admin/test_ordered.py
    "operations.tokens.expire_portals",  # tests/admin/test_portal.py
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
    *(f"secrets.core.trust.IntegrityKey.{what}" for what in ("mac", "verify", "require_authentic")),
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
    "operations.deliveries.checked",
    "secrets.store.port.first_ref",
    *(f"secrets.core.trust.{what}" for what in ("require_epochs", "require_provider", "require_secret")),
    *(f"secrets.core.trust.{what}" for what in ("require_trusted", "require_trusted_extra", "unaudited_row")),
    # keyed by tenant and endpoint: tests/secrets/test_integrity.py
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
    *("secrets.restore.find_stale", "secrets.restore.find_altered", "secrets.restore.find_all"),
    "secrets.restore.is_lost",
    *("secrets.restore.missing_material", "secrets.restore.is_deleted", "secrets.restore.destroy_again"),
    "secrets.restore.lock_records",
    *("operations.restore.accept_endpoint", "operations.endpoint.rotation.wait_until_complete"),
    *(f"secrets.store.external.{what}" for what in ("settle", "burn", "add_destroyed")),
    "operations.tenants.add_tenant",  # both are there
    "operations.replay.take_step",  # tests/operations/test_replay_jobs.py::test_a_job_of_another_tenant
}  # the same for every tenant, since nothing is stale, in flight or left over, and no job runs
_VARYING = re.compile(
    r"generation=\d+|datetime\([^)]*\)|mac=b'(?:[^'\\]|\\.)*'|mac=b\"[^\"]*\"|[0-9a-f]{8}-[0-9a-f-]{27}|nobody|acme"
    r"|portal-[0-9a-f]{32}|'signature': b(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
)


def test_every_function_is_covered() -> None:
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
async def two(begun_pool: Pool, database_url: str) -> AsyncIterator[Two]:
    """Yield an installation in which acme and rival have an endpoint each, with headers and in an overlap."""
    installation = await begin(begun_pool)
    ids = []
    for tenant in (RIVAL, ACME):
        new = NewEndpoint(
            tenant_id=tenant,
            url=f"https://{tenant}.example/hook",
            event_types=("*",),
            settings={"rotate_every_days": 1},
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
    for name in CASES:
        theirs = await run_case(two, name, RIVAL, two.own)
        assert theirs == await run_case(two, name, RIVAL, NOBODY), name
        assert not theirs.moved, name
        assert name in SAME_FOR_ALL or theirs != await run_case(two, name, ACME, two.own), (
            f"{name}: the case cannot distinguish tenants"
        )


# Laws of isolation: names, versions, refs and rows of one tenant never affect another tenant.

NAMES = ("n", "webhook-endpoint-x", "N.")
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),
        st.sampled_from(["put", "get", "read", "rotate", "versions", "destroy"]),
        st.sampled_from(NAMES),
        st.integers(1, 4),
        st.sampled_from([Purpose.WEBHOOK_SIGNING, Purpose.ENDPOINT_HEADERS]),
    ),
    max_size=30,
)
Step = tuple[int, str, str, int, Purpose]
_RUNS = count()


class Tenant:
    """A tenant that does steps on a store and records their results."""

    def __init__(self, store: SecretStore, reader: SecretReader, tenant: str) -> None:
        self.store, self.reader, self.tenant = store, reader, TenantId(tenant)
        self.seen: list[object] = []

    async def do(self, step: Step) -> None:
        """Do the step. Its material contains the tenant and the number of its steps."""
        try:
            self.seen.append(await self._done(step))
        except HooksealError as error:
            self.seen.append((type(error), str(error)))

    async def _done(self, step: Step) -> object:
        _, what, name, version, purpose = step
        ref = SecretRef(provider=self.store.provider, tenant=self.tenant, name=name, version=version)
        material = SecretMaterial(f"{self.tenant[-1]}{len(self.seen)}".encode())
        match what:
            case "put" | "rotate":
                made = await getattr(self.store, what)(self.tenant, name, material, purpose=purpose)
                return made.name, made.version
            case "get":
                return (await self.store.get(ref, purpose=purpose)).reveal()
            case "read":
                return [secret.reveal() for secret in await self.reader.read([ref], purpose=purpose)]
            case "versions":
                known = await self.store.versions(self.tenant, name)
                return [(version.ref.version, version.state, version.purpose) for version in known]
            case _:
                await self.store.destroy(ref)
                return None


async def together(store: SecretStore, steps: Sequence[Step]) -> tuple[list[list[object]], Statistics]:
    """Do all steps of both tenants on this store through one cache; return the results of each."""
    reader, run = reader_on(store), next(_RUNS)
    both = [Tenant(store, reader, f"t{run}-{which}") for which in "ab"]
    for step in steps:
        await both[step[0]].do(step)
    return [tenant.seen for tenant in both], reader.statistics()


async def undisturbed(store: SecretStore, steps: Sequence[Step]) -> None:
    """Assert that each tenant has the same results on this store as it would have alone."""
    seen, counted = await together(store, steps)
    alone = [await together(DevStore(), [step for step in steps if step[0] == which]) for which in (0, 1)]
    assert seen == [saw[which] for which, (saw, _) in enumerate(alone)]
    sums = [sum(getattr(statistics, name) for _, statistics in alone) for name in ("hits", "misses", "entries")]
    assert sums == [counted.hits, counted.misses, counted.entries]


@given(steps=STEPS)
async def test_tenants_in_memory_are_isolated(steps: list[Step]) -> None:
    await undisturbed(DevStore(), steps)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_tenants_in_postgresql_are_isolated(pool: Pool, steps: list[Step]) -> None:
    if not await keys.registered(pool):
        await register(pool)
    await undisturbed(PostgresStore(pool, RING), steps)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_tenants_at_providers_are_isolated(pool: Pool, steps: list[Step]) -> None:
    async with google_api() as (_, api):
        await undisturbed(external(pool, api), steps)


TENANTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True).map(TenantId)
ENDPOINTS = st.sampled_from([ENDPOINT, OTHER_ENDPOINT])
REFS = st.builds(
    SecretRef,
    provider=st.sampled_from(Provider),
    tenant=st.one_of(st.just(TENANT), TENANTS),
    name=st.one_of(
        ENDPOINTS.map(endpoint_secret_name),
        ENDPOINTS.map(endpoint_headers_name),
        st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True),
    ),
    version=st.integers(1, 2**63 - 1),
)


@given(tenant=st.one_of(st.just(TENANT), TENANTS), endpoint=ENDPOINTS, current=REFS, previous=REFS, headers=REFS)
async def test_a_foreign_ref_is_refused_without_a_read(
    tenant: TenantId, endpoint: EndpointId, current: SecretRef, previous: SecretRef, headers: SecretRef
) -> None:
    store = ScriptedStore()
    service = SecretService(reader_on(store), INTEGRITY)
    row = signed(
        replace(
            BARE,
            tenant_id=tenant,
            endpoint_id=endpoint,
            secret_ref=str(current),
            previous_secret_ref=str(previous),
            previous_scheme="standard",
            previous_algorithm="hmac",
            previous_due=True,
            headers_ref=str(headers),
        )
    )
    for given_out, name, refs in (
        (service.signers(row), endpoint_secret_name(endpoint), (current, previous)),
        (service.headers(row), endpoint_headers_name(endpoint), (headers,)),
    ):
        own = all((ref.tenant, ref.name, ref.provider) == (tenant, name, store.provider) for ref in refs)
        with pytest.raises(SecretNotFound if own else SecretDenied):
            async with given_out:
                raise AssertionError("something was given out")
        assert own or not store.fetched
        store.fetched.clear()
