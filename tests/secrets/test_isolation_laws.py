"""Laws of isolation: what two tenants may do to each other with names, versions, refs and rows of any kind: nothing."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookseal.ground.errors import HooksealError
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.secrets import keys
from hookseal.secrets.context import Purpose, SecretContext
from hookseal.secrets.envelope import open_sealed, seal
from hookseal.secrets.errors import ContextMismatch, SecretDenied, SecretNotFound, SecretTampered
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.reader import SecretReader, Statistics
from hookseal.secrets.ref import Provider, SecretRef, endpoint_headers_name, endpoint_secret_name
from hookseal.secrets.service import SecretService
from hookseal.secrets.store import SecretStore
from hookseal.secrets.stores.dev import DevStore
from hookseal.secrets.stores.postgres import PostgresStore
from tests.secrets.doubles import ScriptedStore, reader_on
from tests.secrets.registered import register
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
    """One who does steps on a store, and remembers what came of each."""

    def __init__(self, store: SecretStore, reader: SecretReader, tenant: str) -> None:
        self.store, self.reader, self.tenant = store, reader, TenantId(tenant)
        self.seen: list[object] = []

    async def do(self, step: Step) -> None:
        """Do the step. Its material is of the tenant and of how many steps it did."""
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
    """Do all steps, of both tenants, on this store through one cache; return what each of them saw."""
    reader, run = reader_on(store), next(_RUNS)
    both = [Tenant(store, reader, f"t{run}-{which}") for which in "ab"]
    for step in steps:
        await both[step[0]].do(step)
    return [tenant.seen for tenant in both], reader.statistics()


async def undisturbed(store: SecretStore, steps: Sequence[Step]) -> None:
    """Return only if each tenant sees on the store what it would see if it were alone in the world."""
    seen, counted = await together(store, steps)
    alone = [await together(DevStore(), [step for step in steps if step[0] == which]) for which in (0, 1)]
    assert seen == [saw[which] for which, (saw, _) in enumerate(alone)]
    sums = [sum(getattr(statistics, name) for _, statistics in alone) for name in ("hits", "misses", "entries")]
    assert sums == [counted.hits, counted.misses, counted.entries]


@given(steps=STEPS)
async def test_tenants_in_memory_do_not_see_each_other(steps: list[Step]) -> None:
    """Whatever two tenants do with names that are the same, each sees what it would see alone; so does the cache."""
    await undisturbed(DevStore(), steps)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_tenants_in_postgresql_do_not_see_each_other(pool: "Pool[asyncpg.Record]", steps: list[Step]) -> None:
    """The same on the store in PostgreSQL, whose refusals read as those of the store in memory do."""
    if not await keys.registered(pool):
        await register(pool)
    await undisturbed(PostgresStore(pool, RING), steps)


TENANTS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True).map(TenantId)
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
async def test_nothing_is_asked_for_another(
    tenant: TenantId, endpoint: EndpointId, current: SecretRef, previous: SecretRef, headers: SecretRef
) -> None:
    """A genuine row that names what is not its own is refused before any store is asked, in the words of its column."""
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
def test_a_record_opens_in_its_own_place_only(made: SecretContext, asked: SecretContext, part: str) -> None:
    """A record that was sealed for one tenant, name, version and purpose opens for none other, by any one of them."""
    sealed = seal(RING, SecretMaterial(b"secret"), made)
    moved = replace(made, **{part: getattr(asked, part)})

    assert b"secret" == open_sealed(RING, sealed, made).reveal()
    for elsewhere in {moved, asked} - {made}:
        with pytest.raises(ContextMismatch):
            open_sealed(RING, sealed, elsewhere)


@given(tenant=TENANTS, other=TENANTS, generation=st.integers(0, 2**63 - 1))
def test_a_row_is_genuine_in_its_own_tenant_only(tenant: TenantId, other: TenantId, generation: int) -> None:
    """The MAC of a row says nothing for the same row of another tenant."""
    row = signed(replace(BARE, tenant_id=tenant, generation=generation))
    INTEGRITY.verify(row)

    if other != tenant:
        with pytest.raises(SecretTampered):
            INTEGRITY.verify(replace(row, tenant_id=other))
