"""Reads versions of secrets for use: from the sealed cache, or from the store within the budget of an attempt."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from hookseal.ground.clock import Clock
from hookseal.secrets.cache import CacheKey, SealedCache
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretError, SecretUnavailable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.seen import APART
from hookseal.secrets.single_flight import SingleFlight
from hookseal.secrets.store import SecretStore

BUDGET_SECONDS: Final = 2.0

_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What was read since the start, and what the cache holds now.

    Every secret that is asked for is a hit or a miss; of the misses, those that ended in an error are
    failures, `definitive` or `transient` as the error is. Who left before the end is neither.
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
    """A store behind the cache. What it hands out is younger than the TTL, or the store's answer, or an error.

    Those who miss the same version at the same time share one asking of the store. While the store is
    unavailable it is asked again, at random and growing distances, until the budget of who began is over.
    """

    def __init__(
        self, store: SecretStore, cache: SealedCache, *, clock: Clock, budget_seconds: float = BUDGET_SECONDS
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._budget_seconds = budget_seconds
        self._flights: SingleFlight[CacheKey, SecretMaterial] = SingleFlight()
        self._epoch: tuple[int, int] | None = None
        self._epoch_read_at = datetime.min.replace(tzinfo=UTC)  # the first time that it was
        self._database: int | None = None
        self._definitive = self._transient = self._forgotten = 0

    @property
    def provider(self) -> Provider:
        """The provider of the store behind."""
        return self._store.provider

    @property
    def forgotten(self) -> int:
        """How often all that was read was forgotten: who keeps what was made of it forgets that, too."""
        return self._forgotten

    def obey(self, epoch: tuple[int, int], read_at: datetime) -> None:
        """Forget all that was read under another epoch than this, which was read then.

        It is that of restores, then that of caches: a restore puts the latter back, and frees numbers of versions. A
        lower one than the one before changes nothing unless it was read two seconds after that: two claims of one
        moment may be served in either order.

        Who waits for an answer already gets it, and nobody else does.
        """
        if self._epoch is None:
            self._epoch, self._epoch_read_at = epoch, read_at
        elif epoch > self._epoch or (epoch < self._epoch and read_at - self._epoch_read_at >= APART):
            self._epoch, self._epoch_read_at = epoch, read_at
            self._forget()

    def stand_on(self, database: int) -> None:
        """Forget all that was read from another database: in one that was restored a number may be another secret's."""
        if self._database is not None and self._database != database:
            self._forget()
        self._database = database

    async def read(self, refs: Sequence[SecretRef], *, purpose: Purpose) -> tuple[SecretMaterial, ...]:
        """Return the material of every version, in order, within one budget for all of them.

        Raises what the store raises if that is definitive, at once, and `SecretUnavailable` when the budget
        is over.
        """
        deadline = self._clock.monotonic() + self._budget_seconds
        return tuple([await self._one((ref, purpose), deadline) for ref in refs])

    def statistics(self) -> Statistics:
        """Return the figures as they are now."""
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
            return await self._shared(key, deadline) if cached is None else cached
        except SecretError:
            self._definitive += 1
            raise
        except SecretUnavailable:
            self._transient += 1
            raise

    async def _shared(self, key: CacheKey, deadline: float) -> SecretMaterial:
        while True:
            flight, is_own = self._flights.join(key, lambda: self._fetched(key, deadline))
            await asyncio.wait({flight}, timeout=max(0.0, deadline - self._clock.monotonic()))
            if not flight.done():
                raise self._no_answer()
            try:
                return flight.result()
            except SecretUnavailable:
                if is_own or self._clock.monotonic() >= deadline:
                    raise
            # Who began it had less time left than we have.

    async def _fetched(self, key: CacheKey, deadline: float) -> SecretMaterial:
        ticket = self._cache.ticket()
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                material = await self._asked(key, deadline)
        except Exception as error:
            self._cache.drop(key)
            if isinstance(error, TimeoutError | SecretUnavailable):
                raise self._no_answer() from error
            raise
        self._cache.put(key, material, ticket)
        return material

    async def _asked(self, key: CacheKey, deadline: float) -> SecretMaterial:
        ref, purpose = key

        async def once() -> SecretMaterial:  # tenacity awaits only what is declared async
            return await self._store.get(ref, purpose=purpose)

        return await AsyncRetrying(
            sleep=self._clock.sleep,
            retry=retry_if_exception_type(SecretUnavailable),
            stop=lambda state: self._clock.monotonic() + state.upcoming_sleep >= deadline,
            wait=wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS),
            reraise=True,
        )(once)

    def _no_answer(self) -> SecretUnavailable:
        return SecretUnavailable(
            f"the secret store of provider {self.provider} gave no answer within the "
            f"{self._budget_seconds:g} s that an attempt has: mend it, or the way to it"
        )
