"""The laws of `SecretStore`, for every store."""

import asyncio
from dataclasses import replace

import pytest

from hookseal.errors import Conflict, Malformed, SecretDenied, SecretDestroyed, SecretNotFound
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.store.port import SecretStore, VersionState
from tests.secrets.samples import NAME, OTHER_SECRET, OTHER_TENANT, SECRET, TENANT
from tests.secrets.store.conftest import of_providers

SIGNING = Purpose.WEBHOOK_SIGNING
ACTIVE, PREVIOUS = VersionState.ACTIVE, VersionState.PREVIOUS
RETIRED, DESTROYED = VersionState.RETIRED, VersionState.DESTROYED


pytestmark = pytest.mark.parametrize(
    "store", of_providers(Provider.DEV, Provider.DB, Provider.OPENBAO, Provider.AWS, Provider.GCP), indirect=True
)


async def _states(store: SecretStore) -> list[VersionState]:
    return [version.state for version in await store.versions(TENANT, NAME)]


async def _three_versions(store: SecretStore) -> tuple[SecretRef, SecretRef, SecretRef]:
    return (
        await store.put(TENANT, NAME, SecretMaterial(b"one"), purpose=SIGNING),
        await store.rotate(TENANT, NAME, SecretMaterial(b"two"), purpose=SIGNING),
        await store.rotate(TENANT, NAME, SecretMaterial(b"three"), purpose=SIGNING),
    )


@pytest.mark.parametrize(
    "secret",
    [b"whsec_x", b"\x00", b"nul\x00inside", b"\xff\xfe\x80", b"s" * 65_536, "h\u00e4\U0001f680".encode()],
    ids=lambda secret: repr(secret[:12]),
)
async def test_a_secret_is_read_as_it_was_put(store: SecretStore, secret: bytes) -> None:
    """Any secret of 1 byte to 64 KiB is read back byte for byte, by the ref that `put` returned."""
    ref = await store.put(TENANT, NAME, SecretMaterial(secret), purpose=SIGNING, scheme="standard")

    assert SecretRef(provider=store.provider, tenant=TENANT, name=NAME, version=1) == ref
    assert secret == (await store.get(ref, purpose=SIGNING)).reveal()


@pytest.mark.parametrize("secret", [b"", b"s" * 65_537], ids=len)
async def test_an_empty_or_too_long_secret_is_refused(store: SecretStore, secret: bytes) -> None:
    """`put` and `rotate` refuse such a secret, and nothing is changed."""
    with pytest.raises(Malformed) as caught:
        await store.put(TENANT, NAME, SecretMaterial(secret), purpose=SIGNING)
    assert "secret" == caught.value.field
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    with pytest.raises(Malformed):
        await store.rotate(TENANT, NAME, SecretMaterial(secret), purpose=SIGNING)

    assert [ACTIVE] == await _states(store)


async def test_a_name_is_put_once(store: SecretStore) -> None:
    """A name that exists, even with a destroyed version, cannot be put again; the first secret stays."""
    ref = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    with pytest.raises(Conflict):
        await store.put(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    assert SECRET == await store.get(ref, purpose=SIGNING)
    await store.destroy(ref)
    with pytest.raises(Conflict):
        await store.put(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)


async def test_of_concurrent_puts_one_succeeds(store: SecretStore) -> None:
    """Of ten concurrent puts of one name one succeeds and nine are conflicts."""
    puts = [store.put(TENANT, NAME, SecretMaterial(b"%d" % n), purpose=SIGNING) for n in range(10)]
    results = await asyncio.gather(*puts, return_exceptions=True)

    assert 1 == sum(isinstance(result, SecretRef) for result in results)
    assert 9 == sum(isinstance(result, Conflict) for result in results)
    assert [ACTIVE] == await _states(store)


@pytest.mark.req("SEC-08")
async def test_tenants_share_nothing(store: SecretStore) -> None:
    """The same name in two tenants is two secrets, and a ref of one tenant never reaches those of another."""
    ref = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    with pytest.raises(SecretNotFound):
        await store.get(replace(ref, tenant=OTHER_TENANT), purpose=SIGNING)
    with pytest.raises(SecretNotFound):
        await store.rotate(OTHER_TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    with pytest.raises(SecretNotFound):
        await store.destroy(replace(ref, tenant=OTHER_TENANT))
    assert () == await store.versions(OTHER_TENANT, NAME)
    other = await store.put(OTHER_TENANT, NAME, OTHER_SECRET, purpose=SIGNING)

    assert OTHER_SECRET == await store.get(other, purpose=SIGNING)
    assert SECRET == await store.get(ref, purpose=SIGNING)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    ("tenant", "name"),
    [("-acme", NAME), ("", NAME), ("acme\x00", NAME), (TENANT, "a/b"), (TENANT, ""), (TENANT, "a\x00")],
)
async def test_a_malformed_tenant_or_name_is_refused(store: SecretStore, tenant: str, name: str) -> None:
    """A malformed tenant or name is refused by every call that takes one."""
    for call in (store.put, store.rotate):
        with pytest.raises(Malformed):
            await call(TenantId(tenant), name, SECRET, purpose=SIGNING)
    with pytest.raises(Malformed):
        await store.versions(TenantId(tenant), name)


async def test_the_reserved_tenant_is_treated_like_any_other(store: SecretStore) -> None:
    """A store treats the reserved tenant like any other."""
    ref = await store.put(SYSTEM_TENANT, "integrity", SECRET, purpose=Purpose.INTEGRITY)

    assert SECRET == await store.get(ref, purpose=Purpose.INTEGRITY)


async def test_a_secret_is_read_only_for_its_purpose(store: SecretStore) -> None:
    """Reading or rotating with another purpose is denied, and changes nothing."""
    ref = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    for purpose in (Purpose.INTEGRITY, Purpose.SENTINEL):
        with pytest.raises(SecretDenied):
            await store.get(ref, purpose=purpose)
        with pytest.raises(SecretDenied):
            await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=purpose)

    assert [ACTIVE] == await _states(store)


async def test_a_reference_of_another_provider_is_denied(store: SecretStore) -> None:
    """A store denies refs of another provider."""
    ref = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    elsewhere = replace(ref, provider=Provider.DB if store.provider is Provider.DEV else Provider.DEV)
    with pytest.raises(SecretDenied):
        await store.get(elsewhere, purpose=SIGNING)
    with pytest.raises(SecretDenied):
        await store.destroy(elsewhere)

    assert SECRET == await store.get(ref, purpose=SIGNING)


async def test_a_version_never_changes(store: SecretStore) -> None:
    """Each ref always returns the secret that was stored under it, whatever the state of its version."""
    refs = await _three_versions(store)

    assert [1, 2, 3] == [ref.version for ref in refs]
    assert [b"one", b"two", b"three"] == [(await store.get(ref, purpose=SIGNING)).reveal() for ref in refs]


async def test_a_missing_version_is_not_found(store: SecretStore) -> None:
    """A version that was never created is not found, neither the next nor the highest possible one."""
    ref = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    for version in (2, 2**63 - 1):
        with pytest.raises(SecretNotFound):
            await store.get(replace(ref, version=version), purpose=SIGNING)
        with pytest.raises(SecretNotFound):
            await store.destroy(replace(ref, version=version))


async def test_a_rotation_makes_older_versions_previous_and_retired(store: SecretStore) -> None:
    """The new version is active, the one before it previous, and all older ones retired."""
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING, scheme="standard")
    assert [ACTIVE] == await _states(store)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING, scheme="x-webhook")
    assert [PREVIOUS, ACTIVE] == await _states(store)
    await store.rotate(TENANT, NAME, SECRET, purpose=SIGNING)
    assert [RETIRED, PREVIOUS, ACTIVE] == await _states(store)
    await store.rotate(TENANT, NAME, SECRET, purpose=SIGNING)
    assert [RETIRED, RETIRED, PREVIOUS, ACTIVE] == await _states(store)

    versions = await store.versions(TENANT, NAME)
    assert [1, 2, 3, 4] == [version.ref.version for version in versions]
    assert ["standard", "x-webhook", None, None] == [version.scheme for version in versions]
    assert {SIGNING} == {version.purpose for version in versions}
    assert all(version.created_at <= version.changed_at for version in versions)


async def test_a_missing_name_is_not_rotated(store: SecretStore) -> None:
    """A rotation without a first version is refused and creates none."""
    with pytest.raises(SecretNotFound):
        await store.rotate(TENANT, NAME, SECRET, purpose=SIGNING)

    assert () == await store.versions(TENANT, NAME)


async def test_concurrent_rotations_each_get_a_version(store: SecretStore) -> None:
    """Each of many concurrent rotations gets its own version; one is active, one previous, none is lost."""
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    rotations = [store.rotate(TENANT, NAME, SecretMaterial(b"%d" % n), purpose=SIGNING) for n in range(8)]
    refs = await asyncio.gather(*rotations)

    assert list(range(2, 10)) == sorted(ref.version for ref in refs)
    assert [RETIRED] * 7 + [PREVIOUS, ACTIVE] == await _states(store)
    assert [b"%d" % n for n in range(8)] == [(await store.get(ref, purpose=SIGNING)).reveal() for ref in refs]


async def test_a_destroyed_version_is_listed_and_not_readable(store: SecretStore) -> None:
    """After `destroy`, which may be repeated, the version is listed as destroyed and cannot be read."""
    first, second, third = await _three_versions(store)
    await store.destroy(first)
    destroyed_at = (await store.versions(TENANT, NAME))[0].changed_at
    await store.destroy(first)

    with pytest.raises(SecretDestroyed):
        await store.get(first, purpose=SIGNING)
    assert [DESTROYED, PREVIOUS, ACTIVE] == await _states(store)
    assert destroyed_at == (await store.versions(TENANT, NAME))[0].changed_at
    assert b"two" == (await store.get(second, purpose=SIGNING)).reveal()
    assert b"three" == (await store.get(third, purpose=SIGNING)).reveal()


async def test_a_name_with_a_destroyed_version_is_rotated(store: SecretStore) -> None:
    """A destroyed version stays destroyed, and its number is not used again."""
    ref = await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    await store.destroy(ref)
    new = await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)

    assert 2 == new.version
    assert [DESTROYED, ACTIVE] == await _states(store)
