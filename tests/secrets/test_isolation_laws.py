"""Laws of isolation: names, versions, refs and rows of one tenant never affect another tenant."""

from collections.abc import Sequence
from itertools import count

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookseal.errors import ContextMismatch, HooksealError, SecretDenied, SecretNotFound, SecretTampered
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.secrets.core.envelope import open_sealed, seal
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import (
    Provider,
    Purpose,
    SecretContext,
    SecretRef,
    endpoint_headers_name,
    endpoint_secret_name,
)
from hookseal.secrets.key import keys
from hookseal.secrets.resolve.reader import SecretReader, Statistics
from hookseal.secrets.resolve.service import SecretService
from hookseal.secrets.store.dev import DevStore
from hookseal.secrets.store.port import SecretStore
from hookseal.secrets.store.postgres import PostgresStore
from tests.doubles.providers import external, google_api
from tests.doubles.replaced import replace
from tests.secrets.doubles import ScriptedStore, reader_on
from tests.secrets.key.registered import register
from tests.secrets.samples import BARE, ENDPOINT, INTEGRITY, OTHER_ENDPOINT, RING, TENANT, signed

pytestmark = pytest.mark.req("SEC-08")

Pool = asyncpg.Pool
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
    """Two tenants with the same names each have the results that they would have alone, and so does the cache."""
    await undisturbed(DevStore(), steps)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_tenants_in_postgresql_are_isolated(pool: "Pool[asyncpg.Record]", steps: list[Step]) -> None:
    """The same holds for the store in PostgreSQL, whose errors have the same texts."""
    if not await keys.registered(pool):
        await register(pool)
    await undisturbed(PostgresStore(pool, RING), steps)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_tenants_at_providers_are_isolated(pool: "Pool[asyncpg.Record]", steps: list[Step]) -> None:
    """The same holds for a store whose material lies at a provider outside PostgreSQL."""
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
    """A row with a valid MAC and a foreign ref is refused before the store is asked."""
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


CONTEXTS = st.builds(
    SecretContext,
    tenant=TENANTS,
    name=st.from_regex(r"[A-Za-z0-9._-]{1,8}", fullmatch=True),
    version=st.integers(1, 2**63 - 1),
    purpose=st.sampled_from(Purpose),
)


@given(made=CONTEXTS, asked=CONTEXTS, part=st.sampled_from(["tenant", "name", "version", "purpose"]))
def test_a_record_opens_only_in_its_own_context(made: SecretContext, asked: SecretContext, part: str) -> None:
    """A record does not open if its tenant, name, version or purpose differs."""
    sealed = seal(RING, SecretMaterial(b"secret"), made)
    moved = replace(made, **{part: getattr(asked, part)})

    assert b"secret" == open_sealed(RING, sealed, made).reveal()
    for elsewhere in {moved, asked} - {made}:
        with pytest.raises(ContextMismatch):
            open_sealed(RING, sealed, elsewhere)


@given(tenant=TENANTS, other=TENANTS, generation=st.integers(0, 2**63 - 1))
def test_a_mac_verifies_only_for_its_own_tenant(tenant: TenantId, other: TenantId, generation: int) -> None:
    """The MAC of a row does not verify for the same row of another tenant."""
    row = signed(replace(BARE, tenant_id=tenant, generation=generation))
    INTEGRITY.verify(row)

    if other != tenant:
        with pytest.raises(SecretTampered):
            INTEGRITY.verify(replace(row, tenant_id=other))
