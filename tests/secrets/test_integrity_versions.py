"""The versions of the integrity key at the store."""

import asyncio

import pytest

from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretNotFound
from hookseal.secrets.integrity_versions import INTEGRITY_NAME, IntegrityVersions, integrity_key
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.stores.dev import DevStore
from tests.doubles.clock import FakeClock

pytestmark = pytest.mark.req("SEC-24", part="integrity-key")


class CountingStore(DevStore):
    """A store that counts how often it was asked which versions there are."""

    asked = 0

    async def versions(self, tenant, name):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- as the store does
        """Count, and answer."""
        self.asked += 1
        return await super().versions(tenant, name)


async def put(store: DevStore, *, rotated: int = 0) -> SecretRef:
    """Put the integrity key, and so many newer versions of it; return the last."""
    ref = await store.put(SYSTEM_TENANT, INTEGRITY_NAME, SecretMaterial(bytes(32)), purpose=Purpose.INTEGRITY)
    for number in range(1, rotated + 1):
        ref = await rotate(store, number)
    return ref


async def rotate(store: DevStore, number: int) -> SecretRef:
    """Put a newer version."""
    material = SecretMaterial(bytes([number]) * 32)
    return await store.rotate(SYSTEM_TENANT, INTEGRITY_NAME, material, purpose=Purpose.INTEGRITY)


async def test_every_version_is_known() -> None:
    """The newest authenticates, older ones verify, whatever their state; what was destroyed is not known."""
    store = DevStore()
    last = await put(store, rotated=12)
    await store.destroy(SecretRef(provider=last.provider, tenant=SYSTEM_TENANT, name=INTEGRITY_NAME, version=2))

    key = await integrity_key(store)

    assert "13" == key.key_id
    assert [str(number) for number in range(1, 14) if number != 2] == [
        str(number) for number in range(20) if key.knows(str(number))
    ]


async def test_without_one_nothing_starts() -> None:
    """An installation that has no integrity key is refused."""
    with pytest.raises(SecretNotFound, match="_system/integrity"):
        await integrity_key(DevStore())


async def test_learning_is_bounded() -> None:
    """Many who meet an unknown version at once ask once; a version that is not there is asked for once a second."""
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


async def test_what_comes_within_the_second_is_learned() -> None:
    """A version that is made just after somebody asked for one that is not there is known to who waits for it."""
    clock, store = FakeClock(), CountingStore()
    await put(store)
    key = await integrity_key(store)
    versions = IntegrityVersions(store, key, clock=clock)
    await versions.learn("99")
    await rotate(store, 1)

    await versions.learn("2")

    assert "2" == key.key_id
