"""What a compromised master key may have exposed, according to the records and their rows."""

import asyncpg
import pytest

from hookseal.errors import Malformed, SecretUnavailable
from hookseal.ground import ids
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key import compromise
from hookseal.secrets.key.compromise import BEGINNING, Exposed, Remedy, count, cursor_of, exposed, page, place_of
from tests.secrets.key.registered import sealed_under
from tests.secrets.samples import ENDPOINT, FIRST, NAME, SECOND, TENANT, ref

pytestmark = pytest.mark.req("SEC-22")


@pytest.fixture
async def three(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Seal three versions under the first key, the newest active; pages have two rows."""
    monkeypatch.setattr(compromise, "_BATCH", 2)
    for version in (1, 2, 3):
        await pool.execute("UPDATE hookseal.secret_records SET state = 'retired'")
        await sealed_under(pool, FIRST, ref(version, Provider.DB))
    return pool


async def versions(pool: Pool) -> list[int]:
    """Return the listed versions."""
    async with pool.acquire() as connection:
        found = [each.version async for each in exposed(connection, FIRST.key_id)]
        assert len(found) == await count(connection, FIRST.key_id)
    return found


async def test_every_version_is_listed_once(three: Pool) -> None:
    """Every version is listed exactly once over all pages, with its facts."""
    assert [1, 2, 3] == await versions(three)
    async with three.acquire() as connection:
        assert (
            Exposed(
                tenant_id=TENANT,
                name=NAME,
                version=3,
                ref=str(ref(3, Provider.DB)),
                purpose="webhook-signing",
                state="active",
                endpoint_id=None,
                generation=None,
                used_as=None,
            )
            == (await page(connection, FIRST.key_id, (TENANT, NAME, 2), 10))[0]
        )
        assert [] == await page(connection, SECOND.key_id, BEGINNING, 10)


@pytest.mark.parametrize(
    "written",
    [
        "wrapped_by = '{}'",
        "sealed = '\\x0101ffff'",
        "wrapped_by = wrapped_by || 'ffffffffffffffff'::text",
        "state = 'destroyed', sealed = NULL",
    ],
)
async def test_a_listed_or_named_key_is_enough(three: Pool, written: str) -> None:
    """A version is listed if either its list of keys or the record itself names the key."""
    await three.execute(f"UPDATE hookseal.secret_records SET {written} WHERE version = 2")  # noqa: S608

    assert [1, 2, 3] == await versions(three)


async def test_versions_under_other_keys_are_not_listed(three: Pool) -> None:
    """A version that was only under other keys is not listed."""
    await three.execute("DELETE FROM hookseal.secret_records WHERE version = 3")
    await sealed_under(three, SECOND, ref(3, Provider.DB))

    assert [1, 2] == await versions(three)


def version_of(*, used_as: str | None, tenant: str = "acme", name: str = "n", state: str = "active") -> Exposed:
    """Return a version that its endpoint uses in this way."""
    return Exposed(
        tenant_id=tenant,  # type: ignore[arg-type]
        name=name,
        version=1,
        ref="r",
        purpose="p",
        state=state,
        endpoint_id=ENDPOINT,
        generation=1,
        used_as=used_as,
    )


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (version_of(used_as="current"), Remedy.ROTATION),
        (version_of(used_as="previous"), Remedy.NONE),
        (version_of(used_as="headers"), Remedy.NEW_HEADER_VALUES),
        (version_of(used_as=None), Remedy.NONE),
        (version_of(used_as=None, tenant="_system", name="integrity"), Remedy.NEW_INTEGRITY_KEY),
        (version_of(used_as=None, tenant="_system", name="integrity", state="previous"), Remedy.NONE),
        (version_of(used_as=None, tenant="_system", name="sentinel"), Remedy.NONE),
        (version_of(used_as=None, tenant="acme", name="integrity"), Remedy.NONE),
    ],
)
def test_each_version_has_its_remedy(found: Exposed, remedy: Remedy) -> None:
    """A current secret is to be rotated, the integrity key needs a new version, and headers need new values."""
    assert remedy is found.remedy


def test_a_cursor_decodes_to_its_version() -> None:
    """A cursor decodes to the version at which its page ended."""
    found = version_of(used_as=None)
    assert found.place == place_of(cursor_of(found))


@pytest.mark.parametrize("place", ["acme/n", "acme/n/1/2", "acme/n/x", "acme/n/-1", "ac\0me/n/1", f"acme/n/{10**18}"])
def test_an_invalid_cursor_is_malformed(place: str) -> None:
    """A text that is not a cursor of a page is malformed."""
    for text in (ids.encode_cursor(place), "%%%", place):
        with pytest.raises(Malformed):
            place_of(text)


async def test_a_closed_connection_is_unavailable(database_url: str) -> None:
    """On a closed connection, every call raises `SecretUnavailable`."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    for asking in (
        page(connection, FIRST.key_id, BEGINNING, 1),
        count(connection, FIRST.key_id),
        anext(exposed(connection, FIRST.key_id)),
    ):
        with pytest.raises(SecretUnavailable):
            await asking
