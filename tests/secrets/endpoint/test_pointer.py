"""Setting the first secret of an endpoint."""

from typing import Any

import asyncpg
import pytest

from hookseal.errors import Conflict, NotFound, SecretDenied, SecretTampered, SecretUnavailable
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.ref import Provider, SecretRef, endpoint_headers_name
from hookseal.secrets.endpoint import pointer
from tests.doubles.replaced import replace
from tests.secrets.samples import BARE, ENDPOINT, INTEGRITY, NAME, OTHER_ENDPOINT, OTHER_TENANT, TENANT, ref, signed

REF = ref(1, Provider.DB)
HEADERS = replace(REF, name=endpoint_headers_name(ENDPOINT))
FIRST = pointer.InitialSecrets(ref=REF, scheme=Scheme.STANDARD, algorithm=Algorithm.HMAC)
ROW = "SELECT * FROM hookseal.endpoints WHERE id = $1"


@pytest.fixture
async def endpoint(pool: Pool) -> None:
    """Insert an endpoint without a secret."""
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types) VALUES ($1, $2, $3, '{*}')",
        TENANT,
        ENDPOINT,
        BARE.url,
    )


async def _first(pool: Pool, **change: Any) -> Pointer:
    tenant = change.pop("tenant", TENANT)
    async with pool.acquire() as connection, connection.transaction():
        return await pointer.set_initial(
            connection, INTEGRITY, tenant=tenant, endpoint_id=ENDPOINT, to=replace(FIRST, **change)
        )


@pytest.mark.req("SEC-24", part="pointer-mac")
async def test_the_first_secret_sets_ref_generation_and_mac(pool: Pool, endpoint: None) -> None:
    """The row then has the values of the pointer, the first generation, and a MAC that verifies."""
    found = await _first(pool)
    row = await pool.fetchrow(ROW, ENDPOINT)

    assert signed(replace(BARE, secret_ref=str(REF), read_at=found.read_at)) == found
    assert row is not None
    assert (str(REF), "db", 1) == (row["secret_ref"], row["secret_provider"], row["generation"])
    assert (found.mac, INTEGRITY.key_id) == (row["mac"], row["mac_key_id"])
    assert row["secret_updated_at"] >= row["created_at"]
    assert (None, None) == (row["previous_secret_ref"], row["previous_secret_expires_at"])
    INTEGRITY.verify(found)


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.req("DEL-13", part="sealed-values")
async def test_the_mac_covers_algorithm_and_headers(pool: Pool, endpoint: None) -> None:
    """The MAC covers the algorithm and the header values: a change of either is detected."""
    found = await _first(pool, algorithm=Algorithm.ED25519, headers=HEADERS)
    row = await pool.fetchrow(ROW, ENDPOINT)

    assert row is not None
    assert ("ed25519", str(HEADERS)) == (row["algorithm"], row["headers_ref"])
    INTEGRITY.verify(found)
    for altered in (replace(found, algorithm="hmac"), replace(found, headers_ref=None)):
        with pytest.raises(SecretTampered):
            INTEGRITY.verify(altered)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "wrong",
    [
        replace(HEADERS, tenant=OTHER_TENANT),
        replace(HEADERS, name=endpoint_headers_name(OTHER_ENDPOINT)),
        replace(HEADERS, name=NAME),
    ],
    ids=str,
)
async def test_headers_of_another_tenant_or_endpoint_are_denied(pool: Pool, endpoint: None, wrong: SecretRef) -> None:
    """Only header values of the endpoint itself can be set, and never a signing secret in their place."""
    with pytest.raises(SecretDenied):
        await _first(pool, headers=wrong)

    assert await pool.fetchval("SELECT headers_ref IS NULL AND generation = 0 FROM hookseal.endpoints")


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.parametrize("expiry", ["2999-01-01Z", "2000-01-01Z"])
async def test_an_expiry_set_by_hand_breaks_the_mac(pool: Pool, endpoint: None, expiry: str) -> None:
    """An expiry that was changed in the database by hand is tampering."""
    found = await _first(pool)
    await pool.execute(f"UPDATE hookseal.endpoints SET previous_secret_expires_at = '{expiry}'")  # noqa: S608 -- ours
    expires = await pool.fetchval("SELECT previous_secret_expires_at FROM hookseal.endpoints")

    with pytest.raises(SecretTampered):
        INTEGRITY.verify(replace(found, previous_secret_expires_at=expires))


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "wrong",
    [
        SecretRef(provider=Provider.DB, tenant=OTHER_TENANT, name=NAME, version=1),
        SecretRef(provider=Provider.DB, tenant=TENANT, name=f"webhook-endpoint-{OTHER_ENDPOINT}", version=1),
        SecretRef(provider=Provider.DB, tenant=TENANT, name="integrity", version=1),
    ],
    ids=str,
)
async def test_a_secret_of_another_tenant_or_endpoint_is_denied(pool: Pool, endpoint: None, wrong: SecretRef) -> None:
    """Only a secret of the endpoint itself can be set; otherwise the row stays unchanged."""
    with pytest.raises(SecretDenied):
        await _first(pool, ref=wrong)

    assert await pool.fetchval("SELECT secret_ref IS NULL AND generation = 0 FROM hookseal.endpoints")


async def test_an_absent_endpoint_is_not_found(pool: Pool) -> None:
    """An endpoint without a row is not found."""
    with pytest.raises(NotFound):
        await _first(pool)


@pytest.mark.req("SEC-08")
async def test_an_endpoint_of_another_tenant_is_not_found(pool: Pool, endpoint: None) -> None:
    """The id of an endpoint under another tenant is not found."""
    with pytest.raises(NotFound):
        await _first(pool, tenant=OTHER_TENANT, ref=replace(REF, tenant=OTHER_TENANT))


@pytest.mark.parametrize("had", ["secret_ref = 'x'", "previous_secret_ref = 'x'", "generation = 3"])
async def test_an_endpoint_with_a_secret_is_a_conflict(pool: Pool, endpoint: None, had: str) -> None:
    """An endpoint that has a secret, or had one before, is a conflict and stays unchanged."""
    await pool.execute(f"UPDATE hookseal.endpoints SET {had}")  # noqa: S608
    before = await pool.fetchrow(ROW, ENDPOINT)
    with pytest.raises(Conflict):
        await _first(pool)

    assert before == await pool.fetchrow(ROW, ENDPOINT)


async def test_the_row_is_locked_until_the_transaction_ends(pool: Pool, endpoint: None) -> None:
    """The row stays locked until the caller's transaction ends, even against a key share lock (law 4)."""
    async with pool.acquire() as mine, pool.acquire() as theirs, mine.transaction():
        await pointer.set_initial(mine, INTEGRITY, tenant=TENANT, endpoint_id=ENDPOINT, to=FIRST)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await theirs.execute("SELECT FROM hookseal.endpoints FOR KEY SHARE NOWAIT")


async def test_a_closed_connection_is_unavailable(database_url: str) -> None:
    """A closed connection is `SecretUnavailable`, as in the store."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()

    with pytest.raises(SecretUnavailable):
        await pointer.set_initial(connection, INTEGRITY, tenant=TENANT, endpoint_id=ENDPOINT, to=FIRST)
