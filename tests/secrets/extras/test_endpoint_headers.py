"""The header values of an endpoint in a real store: changes, versions and ownership."""

from collections.abc import AsyncIterator

import pytest

from hookseal.errors import Malformed, NotFound, SecretDenied, SecretNotFound, SecretUnusable
from hookseal.postgres.pool import Connection, Pool
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_headers_name
from hookseal.secrets.extras import stored
from hookseal.secrets.store.postgres import PostgresStore
from tests.doubles.replaced import replace
from tests.secrets.key.registered import register
from tests.secrets.samples import BARE, ENDPOINT, NAME, OTHER_ENDPOINT, OTHER_TENANT, RING, TENANT

KEY, TOKEN, OTHER = (SecretMaterial(text.encode()) for text in ("k-value", "t-value", "o-value"))
HEADERS = endpoint_headers_name(ENDPOINT)


def ref(version: int) -> SecretRef:
    """Return the ref of this version of the endpoint's header values."""
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
    """Store these headers in a transaction of their own."""
    async with connection.transaction():
        return await stored.keep(connection, store, stored.HEADERS, headers, tenant=TENANT, endpoint_id=ENDPOINT)


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
def test_set_and_removed_headers_change(change: HeaderChange, expected: dict[str, SecretMaterial]) -> None:
    """Given headers are set, removed ones are deleted, the others stay; or the given ones replace all."""
    assert expected == change.applied({"a": KEY, "b": TOKEN})


def test_removing_an_absent_header_is_an_error() -> None:
    """Removing a header that does not exist is an error."""
    with pytest.raises(NotFound, match="no header c") as caught:
        HeaderChange(given={}, removed=frozenset({"a", "c"})).applied({"a": KEY})
    assert "headers" == caught.value.field


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_one_version_is_in_use(connection: Connection, store: PostgresStore) -> None:
    """Each change makes a new version and retires the one before; without headers no version is active."""
    assert ref(1) == await kept(connection, store, a=KEY)
    assert ref(2) == await kept(connection, store, a=KEY, b=TOKEN)
    assert ["retired", "active"] == await states(store)
    assert {"a": KEY, "b": TOKEN} == await stored.opened(store, stored.HEADERS, replace(BARE, headers_ref=str(ref(2))))

    assert await kept(connection, store) is None
    assert ["retired", "retired"] == await states(store)
    assert ref(3) == await kept(connection, store, b=OTHER)
    assert ["retired", "retired", "active"] == await states(store)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_the_values_are_sealed(pool: Pool, connection: Connection, store: PostgresStore) -> None:
    """The headers are stored as one sealed record with their purpose; it shows neither names nor values."""
    await kept(connection, store, authorization=KEY)
    row = await pool.fetchrow("SELECT * FROM hookseal.secret_records")

    assert row is not None
    assert ("endpoint-headers", None) == (row["purpose"], row["scheme"])
    assert not any(part in row["sealed"] for part in (b"k-value", b"authorization"))


async def test_an_endpoint_without_headers_has_no_record(connection: Connection, store: PostgresStore) -> None:
    """An endpoint without headers has no record of them, and reading them returns none."""
    assert await kept(connection, store) is None
    assert [] == await states(store)
    assert {} == await stored.opened(store, stored.HEADERS, BARE)


@pytest.mark.req("DEL-13", part="rules")
async def test_a_forbidden_header_is_not_stored(connection: Connection, store: PostgresStore) -> None:
    """A protected name or a value with a line break is refused before it is sealed, without the value in the error."""
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
async def test_anothers_ref_is_denied(connection: Connection, store: PostgresStore, wrong: SecretRef) -> None:
    """A ref of another tenant, endpoint, purpose or provider is denied."""
    await kept(connection, store, a=KEY)
    with pytest.raises(SecretDenied):
        await stored.opened(store, stored.HEADERS, replace(BARE, headers_ref=str(wrong)))


async def test_a_missing_or_invalid_record_is_an_error(connection: Connection, store: PostgresStore) -> None:
    """A missing version, and a record that does not contain headers, are errors of the secret."""
    with pytest.raises(SecretNotFound):
        await stored.opened(store, stored.HEADERS, replace(BARE, headers_ref=str(ref(1))))
    await store.put(TENANT, HEADERS, SecretMaterial(b"no headers"), purpose=Purpose.ENDPOINT_HEADERS)
    with pytest.raises(SecretUnusable, match="set them again"):
        await stored.opened(store, stored.HEADERS, replace(BARE, headers_ref=str(ref(1))))


async def test_retire_retires_every_version(connection: Connection, store: PostgresStore) -> None:
    """`retire` retires every version of this endpoint's headers, and none of another's."""
    await kept(connection, store, a=KEY)
    other = endpoint_headers_name(OTHER_ENDPOINT)
    await store.put(TENANT, other, SecretMaterial(b"{}"), purpose=Purpose.ENDPOINT_HEADERS)
    await stored.retire(connection, store, stored.HEADERS, tenant=TENANT, endpoint_id=ENDPOINT)

    assert ["retired"] == await states(store)
    assert ["active"] == [version.state.value for version in await store.versions(TENANT, other)]
