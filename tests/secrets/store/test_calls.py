"""How often a provider that charges for each call is asked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from hookseal.errors import SecretUnavailable
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.key.keys import PAID_SECONDS, Sentinel
from hookseal.secrets.store.external import ExternalStore
from tests.doubles.clock import FakeClock
from tests.doubles.google import GoogleSecrets
from tests.doubles.providers import external, google_api
from tests.secrets.doubles import reader_on
from tests.secrets.samples import NAME, SECRET, TENANT

pytestmark = pytest.mark.req("SEC-01", part="calls")
READ = "AccessSecretVersion"
Scene = tuple[GoogleSecrets, ExternalStore, SecretRef]


@pytest.fixture
async def scene(pool: Pool) -> AsyncIterator[Scene]:
    """Yield a Google, a store on it, and a secret in it."""
    async with google_api() as (kept, api):
        store = external(pool, api)
        yield kept, store, await store.put(TENANT, NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)


async def test_a_thousand_concurrent_deliveries_cost_one_call(scene: Scene) -> None:
    """A thousand attempts at once read a secret once, and not again until its time in the cache is over."""
    kept, store, ref = scene
    clock = FakeClock()
    reader = reader_on(store, clock, ttl_seconds=300)

    async def attempts() -> int:
        before = kept.calls.count(READ)
        found = await asyncio.gather(*[reader.read([ref], purpose=Purpose.WEBHOOK_SIGNING) for _ in range(1_000)])
        assert [(SECRET,)] * 1_000 == found
        return kept.calls.count(READ) - before

    assert [1, 0] == [await attempts(), await attempts()]
    clock.elapsed += 299
    assert 0 == await attempts()
    clock.elapsed += 1
    assert 1 == await attempts()


async def test_the_sentinel_is_read_once_a_minute(scene: Scene) -> None:
    """However often a probe asks, the provider is asked once a minute; an error counts as long, and then ends."""
    kept, store, _ = scene
    clock = FakeClock()
    sentinel = Sentinel(await store.put(TENANT, "sentinel", SECRET, purpose=Purpose.SENTINEL), clock=clock)

    async def calls() -> int:
        before = kept.calls.count(READ)
        for _ in range(5):
            await sentinel.check(store)
        return kept.calls.count(READ) - before

    assert [1, 0] == [await calls(), await calls()]
    clock.elapsed += PAID_SECONDS

    async def away(_: str, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    kept.fault, before = away, kept.calls.count(READ)
    for _ in range(5):
        with pytest.raises(SecretUnavailable):
            await sentinel.check(store)
    assert before + 1 == kept.calls.count(READ)
    kept.fault = None
    clock.elapsed += PAID_SECONDS
    assert 1 == await calls()
