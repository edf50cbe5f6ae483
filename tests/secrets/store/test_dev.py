"""Properties of the store `dev` that other stores do not have."""

from datetime import timedelta

import pytest

from hookseal.errors import SecretNotFound
from hookseal.secrets.core.ref import Purpose
from hookseal.secrets.store.dev import DevStore
from tests.doubles.clock import FakeClock
from tests.secrets.samples import NAME, OTHER_SECRET, SECRET, TENANT


async def test_times_come_from_the_stores_clock() -> None:
    """The times of creation and of state changes come from the store's clock."""
    clock = FakeClock()
    store = DevStore(clock)
    start = clock.now()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.SENTINEL)
    await clock.sleep(5)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=Purpose.SENTINEL)

    first, second = await store.versions(TENANT, NAME)
    assert (start, start + timedelta(seconds=5)) == (first.created_at, first.changed_at)
    assert (start + timedelta(seconds=5),) * 2 == (second.created_at, second.changed_at)


async def test_two_dev_stores_share_nothing() -> None:
    """Two `dev` stores share nothing."""
    ref = await DevStore().put(TENANT, NAME, SECRET, purpose=Purpose.SENTINEL)

    with pytest.raises(SecretNotFound):
        await DevStore().get(ref, purpose=Purpose.SENTINEL)
