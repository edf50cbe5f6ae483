"""The header values of an endpoint at a real store: its own, one version in use, changed one by one or as a whole."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from hookseal.ground.errors import Malformed, NotFound
from hookseal.schema.database import Connection, Pool
from hookseal.secrets import endpoint_headers
from hookseal.secrets.context import Purpose
from hookseal.secrets.endpoint_headers import HeaderChange
from hookseal.secrets.errors import SecretDenied, SecretNotFound, SecretUnusable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, SecretRef, endpoint_headers_name
from hookseal.secrets.stores.postgres import PostgresStore
from tests.secrets.registered import register
from tests.secrets.samples import BARE, ENDPOINT, NAME, OTHER_ENDPOINT, OTHER_TENANT, RING, TENANT

KEY, TOKEN, OTHER = (SecretMaterial(text.encode()) for text in ("k-value", "t-value", "o-value"))
HEADERS = endpoint_headers_name(ENDPOINT)


def ref(version: int) -> SecretRef:
    """Return the reference of that version of the endpoint's header values."""
    return SecretRef(provider=Provider.DB, tenant=TENANT, name=HEADERS, version=version)


@pytest.fixture
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """Yield a connection."""
    async with pool.acquire() as connection:
        await register(connection)
        yield connection


@pytest.fixture
def store(connection: Connection) -> PostgresStore:
    """Return the store on that connection."""
    return PostgresStore(connection, RING)


async def kept(connection: Connection, store: PostgresStore, **headers: SecretMaterial) -> SecretRef | None:
    """Keep these headers in a transaction of their own."""
    async with connection.transaction():
        return await endpoint_headers.keep(connection, store, tenant=TENANT, endpoint_id=ENDPOINT, headers=headers)


async def states(store: PostgresStore) -> list[str]:
    """Return the states of the versions, oldest first."""
    return [version.state.value for version in await store.versions(TENANT, HEADERS)]


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (HeaderChange(given={}), {"a": KEY, "b": TOKEN}),
        (HeaderChange(given={"a": OTHER}), {"a": OTHER, "b": TOKEN}),
        (HeaderChange(given={"c": OTHER}), {"a": KEY, "b": TOKEN, "c": OTHER}),
        (HeaderChange(given={}, removed=frozenset({"a"})), {"b": TOKEN}),
        (HeaderChange(given={"c": OTHER}, removed=frozenset({"a", "b"})), {"c": OTHER}),
        (HeaderChange(given={"c": OTHER}, replaces_all=True), {"c": OTHER}),
        (HeaderChange(given={}, replaces_all=True), {}),
    ],
)
def test_a_change(change: HeaderChange, expected: dict[str, SecretMaterial]) -> None:
    """What is given is set, what is removed goes, the rest stays; or what is given is all."""
    assert expected == change.applied({"a": KEY, "b": TOKEN})


def test_what_is_not_there_is_not_removed() -> None:
    """A header that is to be removed must be there."""
    with pytest.raises(NotFound, match="no header c") as caught:
        HeaderChange(given={}, removed=frozenset({"a", "c"})).applied({"a": KEY})
    assert "header" == caught.value.field


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_one_version_is_in_use(connection: Connection, store: PostgresStore) -> None:
    """Each change is a version of its own and retires the one before; without headers none is in use."""
    assert ref(1) == await kept(connection, store, a=KEY)
    assert ref(2) == await kept(connection, store, a=KEY, b=TOKEN)
    assert ["retired", "active"] == await states(store)
    assert {"a": KEY, "b": TOKEN} == await endpoint_headers.opened(store, replace(BARE, headers_ref=str(ref(2))))

    assert await kept(connection, store) is None
    assert ["retired", "retired"] == await states(store)
    assert ref(3) == await kept(connection, store, b=OTHER)
    assert ["retired", "retired", "active"] == await states(store)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_the_values_are_sealed(pool: Pool, connection: Connection, store: PostgresStore) -> None:
    """What is stored is one sealed record for its purpose; no value and no name stands in it in the clear."""
    await kept(connection, store, authorization=KEY)
    row = await pool.fetchrow("SELECT * FROM hookseal.secret_records")

    assert row is not None
    assert ("endpoint-headers", None) == (row["purpose"], row["scheme"])
    assert not any(part in row["sealed"] for part in (b"k-value", b"authorization"))


async def test_no_headers_to_begin_with(connection: Connection, store: PostgresStore) -> None:
    """An endpoint without headers has no record of any, and opens to none."""
    assert await kept(connection, store) is None
    assert [] == await states(store)
    assert {} == await endpoint_headers.opened(store, BARE)


@pytest.mark.req("DEL-13", part="rules")
async def test_what_may_not_be_sent_is_not_kept(connection: Connection, store: PostgresStore) -> None:
    """A protected name and a value of two lines are refused before anything is sealed, without the value."""
    for headers in ({"webhook-id": KEY}, {"a": SecretMaterial(b"t-value\r\nwebhook-id: x")}):
        with pytest.raises(Malformed) as caught:
            await kept(connection, store, **headers)
        assert "t-value" not in str(caught.value)
    assert [] == await states(store)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "wrong",
    [
        replace(ref(1), tenant=OTHER_TENANT),
        replace(ref(1), name=endpoint_headers_name(OTHER_ENDPOINT)),
        replace(ref(1), name=NAME),
        replace(ref(1), provider=Provider.DEV),
    ],
    ids=str,
)
async def test_what_belongs_to_another(connection: Connection, store: PostgresStore, wrong: SecretRef) -> None:
    """A ref of another tenant, endpoint, purpose or provider opens nothing."""
    await kept(connection, store, a=KEY)
    with pytest.raises(SecretDenied):
        await endpoint_headers.opened(store, replace(BARE, headers_ref=str(wrong)))


async def test_what_cannot_be_opened(connection: Connection, store: PostgresStore) -> None:
    """A version that is not there, and one that holds no headers, are errors of a secret."""
    with pytest.raises(SecretNotFound):
        await endpoint_headers.opened(store, replace(BARE, headers_ref=str(ref(1))))
    await store.put(TENANT, HEADERS, SecretMaterial(b"no headers"), purpose=Purpose.ENDPOINT_HEADERS)
    with pytest.raises(SecretUnusable, match="set them anew"):
        await endpoint_headers.opened(store, replace(BARE, headers_ref=str(ref(1))))


async def test_retired_with_their_endpoint(connection: Connection, store: PostgresStore) -> None:
    """Retiring them retires every version of this endpoint's, and no other's."""
    await kept(connection, store, a=KEY)
    other = endpoint_headers_name(OTHER_ENDPOINT)
    await store.put(TENANT, other, SecretMaterial(b"{}"), purpose=Purpose.ENDPOINT_HEADERS)
    await endpoint_headers.retire(connection, store, tenant=TENANT, endpoint_id=ENDPOINT)

    assert ["retired"] == await states(store)
    assert ["active"] == [version.state.value for version in await store.versions(TENANT, other)]
