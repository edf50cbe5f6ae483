"""Reads versions of secrets for an attempt: from the sealed cache, else from the store within a time limit."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from hookseal.errors import Cause, SecretError, SecretUnavailable
from hookseal.ground.clock import Clock, retried
from hookseal.ground.single_flight import SingleFlight
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.core.trust import APART
from hookseal.secrets.resolve.cache import CacheKey, SealedCache
from hookseal.secrets.store.port import SecretStore

BUDGET_SECONDS: Final = 2.0

_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The reads since the start, and what the cache holds now.

    Every read of a secret is a hit or a miss. A miss that ended in an error is also a failure: `definitive` for a
    `SecretError`, `transient` for `SecretUnavailable`. A read that was cancelled is no failure.
    """

    hits: int
    misses: int
    definitive_failures: int
    transient_failures: int
    evictions: int
    clears: int
    entries: int
    bytes: int


class SecretReader:
    """Reads from the cache, else from the store. A material is not older than the TTL.

    Concurrent misses of the same version share one read of the store. While the store is unavailable the read is
    retried, at random and growing intervals, until the time limit of the caller that began it. Then the last cause is
    raised that the store gave; if it gave none, the error says that there was no answer.
    """

    def __init__(
        self, store: SecretStore, cache: SealedCache, *, clock: Clock, budget_seconds: float = BUDGET_SECONDS
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._budget_seconds = budget_seconds
        self._flights: SingleFlight[CacheKey, SecretMaterial] = SingleFlight()
        self._store_errors: dict[object, SecretUnavailable] = {}  # by flight: the last one that the store raised
        self._epoch: tuple[int, int] | None = None
        self._epoch_read_at = datetime.min.replace(tzinfo=UTC)  # when it was first read
        self._database: int | None = None
        self._definitive = self._transient = self._forgotten = 0

    @property
    def provider(self) -> Provider:
        """The provider of new versions."""
        return self._store.provider

    @property
    def providers(self) -> frozenset[Provider]:
        """The providers whose refs the store reads."""
        return self._store.providers

    @property
    def forgotten(self) -> int:
        """How often everything was discarded. A caller that keeps what it made of secrets must discard it, too."""
        return self._forgotten

    def use_epoch(self, epoch: tuple[int, int], read_at: datetime) -> None:
        """Discard everything that was read under another epoch. `epoch` was read at `read_at`.

        `epoch` is the restore epoch and the cache epoch, in this order: a restore lowers the cache epoch, and version
        numbers may be used again. A lower epoch than before has an effect only if it was read at least two seconds
        after the higher one, because two claims at the same time may read in either order.

        A read of the store that has begun is only for the callers that already wait for it.
        """
        if self._epoch is None:
            self._epoch, self._epoch_read_at = epoch, read_at
        elif epoch > self._epoch or (epoch < self._epoch and read_at - self._epoch_read_at >= APART):
            self._epoch, self._epoch_read_at = epoch, read_at
            self._forget()

    def use_database(self, database: int) -> None:
        """Discard what was read from another database: after a restore a version number may name another secret."""
        if self._database is not None and self._database != database:
            self._forget()
        self._database = database

    async def read(self, refs: Sequence[SecretRef], *, purpose: Purpose) -> tuple[SecretMaterial, ...]:
        """Return the material of every version, in order, within one time limit for all of them.

        Raises a `SecretError` of the store at once, and `SecretUnavailable` when the time is over.
        """
        deadline = self._clock.monotonic() + self._budget_seconds
        return tuple([await self._one((ref, purpose), deadline) for ref in refs])

    def statistics(self) -> Statistics:
        """Return the figures now."""
        counts = self._cache.counts()
        return Statistics(
            hits=counts.hits,
            misses=counts.misses,
            definitive_failures=self._definitive,
            transient_failures=self._transient,
            evictions=counts.evictions,
            clears=counts.clears,
            entries=counts.entries,
            bytes=counts.bytes,
        )

    def _forget(self) -> None:
        self._cache.clear()
        self._flights.forget()
        self._forgotten += 1

    async def _one(self, key: CacheKey, deadline: float) -> SecretMaterial:
        try:
            cached = self._cache.get(key)
            return await self._read_shared(key, deadline) if cached is None else cached
        except SecretError:
            self._definitive += 1
            raise
        except SecretUnavailable:
            self._transient += 1
            raise

    async def _read_shared(self, key: CacheKey, deadline: float) -> SecretMaterial:
        while True:
            flight, is_own = self._flights.join(key, lambda: self._fetched(key, deadline))
            await asyncio.wait({flight}, timeout=max(0.0, deadline - self._clock.monotonic()))
            if not flight.done():
                raise self._store_errors.get(flight) or self._no_answer(key[0].provider)
            try:
                return flight.result()
            except SecretUnavailable:
                if is_own or self._clock.monotonic() >= deadline:
                    raise
            # The caller that began the read had less time left than this one.

    async def _fetched(self, key: CacheKey, deadline: float) -> SecretMaterial:
        ticket = self._cache.ticket()
        flight = asyncio.current_task()
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                material = await self._read_store(key, deadline, flight)
        except Exception as error:
            self._cache.drop(key)
            if not isinstance(error, TimeoutError | SecretUnavailable):
                raise
            if (store_error := self._store_errors.get(flight)) is not None:
                raise store_error from None
            raise self._no_answer(key[0].provider) from error
        finally:
            self._store_errors.pop(flight, None)
        self._cache.put(key, material, ticket)
        return material

    async def _read_store(self, key: CacheKey, deadline: float, flight: object) -> SecretMaterial:
        ref, purpose = key

        async def once() -> SecretMaterial:
            try:
                return await self._store.get(ref, purpose=purpose)
            except SecretUnavailable as error:
                if error.cause is not Cause.SILENT:  # silence after an answer does not say more than the answer did
                    self._store_errors[flight] = error
                raise

        return await retried(
            once,
            on=SecretUnavailable,
            retrying=lambda: AsyncRetrying(
                sleep=self._clock.sleep,
                retry=retry_if_exception_type(SecretUnavailable),
                stop=lambda state: self._clock.monotonic() + state.upcoming_sleep >= deadline,
                wait=wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS),
                reraise=True,
            ),
        )

    def _no_answer(self, provider: Provider) -> SecretUnavailable:
        return SecretUnavailable(
            f"the secret store of provider {provider} gave no answer within the "
            f"{self._budget_seconds:g} s that an attempt has: repair it, or the connection to it"
        )
