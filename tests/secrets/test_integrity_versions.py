"""The versions of the integrity key in the store."""

import asyncio

import pytest

from hookseal.errors import RecordTampered, SecretNotFound
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.integrity_versions import INTEGRITY_NAME, IntegrityVersions, integrity_key
from hookseal.secrets.store.dev import DevStore
from tests.doubles.clock import FakeClock

pytestmark = pytest.mark.req("SEC-24", part="integrity-key")


class CountingStore(DevStore):
    """A store that counts how often its versions were listed."""

    asked = 0

    async def versions(self, tenant, name):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- as the store does
        """Count the call, and return the versions."""
        self.asked += 1
        return await super().versions(tenant, name)


class UnreadableStore(DevStore):
    """A store that lists the versions of another one, and can open none of them."""

    def __init__(self, other: DevStore) -> None:
        super().__init__()
        self._other = other

    async def versions(self, tenant, name):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- as the store does
        """Return the versions of the other store."""
        return await self._other.versions(tenant, name)

    async def get(self, ref, *, purpose):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- the same
        """Raise `RecordTampered`."""
        raise RecordTampered


async def put(store: DevStore, *, rotated: int = 0) -> SecretRef:
    """Store the integrity key with this many newer versions, and return the last ref."""
    ref = await store.put(SYSTEM_TENANT, INTEGRITY_NAME, SecretMaterial(bytes(32)), purpose=Purpose.INTEGRITY)
    for number in range(1, rotated + 1):
        ref = await rotate(store, number)
    return ref


async def rotate(store: DevStore, number: int) -> SecretRef:
    """Store a newer version."""
    material = SecretMaterial(bytes([number]) * 32)
    return await store.rotate(SYSTEM_TENANT, INTEGRITY_NAME, material, purpose=Purpose.INTEGRITY)


async def test_every_version_is_known() -> None:
    """The newest version makes MACs, older ones verify in any state, and a destroyed one is unknown."""
    store = DevStore()
    last = await put(store, rotated=12)
    await store.destroy(SecretRef(provider=last.provider, tenant=SYSTEM_TENANT, name=INTEGRITY_NAME, version=2))

    key = await integrity_key(store)

    assert "13" == key.key_id
    assert [str(number) for number in range(1, 14) if number != 2] == [
        str(number) for number in range(20) if key.knows(str(number))
    ]


async def test_without_an_integrity_key_nothing_starts() -> None:
    """An installation without an integrity key is refused."""
    with pytest.raises(SecretNotFound, match="_system/integrity"):
        await integrity_key(DevStore())


async def test_learning_is_bounded() -> None:
    """Concurrent callers with an unknown version share one look-up; a missing version is looked up once a second."""
    clock, store = FakeClock(), CountingStore()
    await put(store)
    key = await integrity_key(store)
    versions = IntegrityVersions(store, key, clock=clock)
    await rotate(store, 1)
    store.asked = 0

    await asyncio.gather(*(versions.learn("2") for _ in range(5)))
    assert ("2", 1) == (key.key_id, store.asked)

    began = clock.monotonic()
    await asyncio.gather(*(versions.learn("3") for _ in range(5)))
    assert (3, False) == (store.asked, key.knows("3"))
    assert 2 <= clock.monotonic() - began
    await versions.refresh()
    assert 4 == store.asked


async def test_a_version_made_within_the_second_is_learned() -> None:
    """A version that is created just after a failed look-up is learned by the next caller."""
    clock, store = FakeClock(), CountingStore()
    await put(store)
    key = await integrity_key(store)
    versions = IntegrityVersions(store, key, clock=clock)
    await versions.learn("99")
    await rotate(store, 1)

    await versions.learn("2")

    assert "2" == key.key_id


async def test_a_store_that_lost_versions() -> None:
    """After a restore with fewer versions, the newest stored one makes MACs; lost ones verify until it is accepted."""
    await put(before := DevStore(), rotated=2)
    await put(restored := DevStore())
    key = await integrity_key(before)
    lost = key.authenticate(b"framed")

    await IntegrityVersions(restored, key, clock=FakeClock()).refresh()

    assert "1" == key.key_id
    assert key.is_authentic(b"framed", lost, "3")

    await IntegrityVersions(restored, key, clock=FakeClock()).read_again()
    assert ("1", False) == (key.key_id, key.knows("3"))


async def test_a_reused_version_number_is_read_again() -> None:
    """`refresh` reads the newest version again, `read_again` all of them."""
    await put(before := DevStore(), rotated=2)
    await put(restored := DevStore())
    for number in (7, 8):
        await rotate(restored, number)
    key, theirs = await integrity_key(before), await integrity_key(restored)
    versions = IntegrityVersions(restored, key, clock=FakeClock())

    await versions.refresh()
    assert theirs.authenticate(b"framed") == key.authenticate(b"framed")
    assert theirs.authenticate(b"framed", under="2") != key.authenticate(b"framed", under="2")

    await asyncio.gather(*(versions.read_again() for _ in range(3)))
    assert theirs.authenticate(b"framed", under="2") == key.authenticate(b"framed", under="2")


async def test_missing_or_altered_versions_stop_no_known_key() -> None:
    """If the stored versions are missing or altered, a known key still makes and verifies MACs."""
    await put(store := DevStore(), rotated=1)
    key = await integrity_key(store)
    for store_of in (DevStore(), UnreadableStore(store)):
        await IntegrityVersions(store_of, key, clock=FakeClock()).read_again()
        assert ("2", True) == (key.key_id, key.knows("1"))
    await IntegrityVersions(DevStore(), key, clock=FakeClock()).refresh()
    assert "2" == key.key_id
    with pytest.raises(RecordTampered):
        await IntegrityVersions(UnreadableStore(store), key, clock=FakeClock()).refresh()
