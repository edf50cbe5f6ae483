"""The sealed cache: holds versions of secrets for a time, encrypted under a key that only this process has.

A version never changes, so an entry can only miss that the version was destroyed or refused since, for at most the TTL.
The age of an entry counts from before the store was read, and reading the entry does not renew it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hookseal.errors import SecretTampered
from hookseal.ground.clock import Clock
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12

CacheKey = tuple[SecretRef, Purpose]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """How long and how much is cached. A TTL of 0 caches nothing. `max_bytes` limits the sealed bytes."""

    ttl_seconds: int = 300
    max_entries: int = 10_000
    max_bytes: int = 16_777_216


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCounts:
    """What the cache did since its creation, and what it holds now."""

    hits: int
    misses: int
    evictions: int
    clears: int
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The state of the cache just before a read of the store. The age of the answer counts from then."""

    asked_at: float
    clears: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    sealed: bytes
    asked_at: float
    lifetime: float

    def is_expired(self, now: float) -> bool:
        return now - self.asked_at >= self.lifetime


class SealedCache:
    """Holds sealed versions and gives none that is older than the TTL; the least recently used are evicted first.

    One that has expired may stay, sealed, behind one that was used less recently: for at most another TTL.

    `chance` returns a number in [0, 1). Each entry lives for a random time between half of the TTL and the TTL, so that
    entries that were read together do not expire together.
    """

    def __init__(
        self, limits: CacheLimits, *, clock: Clock, chance: Callable[[], float], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._chance = chance
        self._random_bytes = random_bytes
        self._cipher = AESGCM(random_bytes(_KEY_BYTES))
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # keyed by what the entry is bound to: see `encoded`
        self._hits = self._misses = self._evictions = self._clears = self._bytes = 0

    def get(self, key: CacheKey) -> SecretMaterial | None:
        """Return the material under the key, None if there is none or it has expired.

        Raises `SecretTampered`, and drops the entry, if it was altered or moved to another key.
        """
        now = self._clock.monotonic()
        self._shed(now)
        bound = encoded(key)
        entry = self._entries.get(bound)
        if entry is None or entry.is_expired(now):
            self._drop(bound)
            self._misses += 1
            return None
        try:
            plain = self._cipher.decrypt(entry.sealed[:_NONCE_BYTES], entry.sealed[_NONCE_BYTES:], bound)
        except InvalidTag:
            self._drop(bound)
            self._misses += 1
            raise SecretTampered("a cached secret was altered in the memory of this process") from None
        self._entries.move_to_end(bound)
        self._hits += 1
        return SecretMaterial(plain)

    def ticket(self) -> Ticket:
        """Return the ticket that `put` needs; take it before you read the store."""
        return Ticket(asked_at=self._clock.monotonic(), clears=self._clears)

    def put(self, key: CacheKey, material: SecretMaterial, ticket: Ticket) -> None:
        """Store the answer of the store under the key, and evict others if there is no room.

        It is not stored if the cache was cleared since the ticket, if it is too old by now, or if it alone exceeds the
        limit of bytes.
        """
        now = self._clock.monotonic()
        lifetime = self._limits.ttl_seconds * (1 - self._chance() / 2)
        if ticket.clears != self._clears or now - ticket.asked_at >= lifetime:
            return
        bound, nonce = encoded(key), self._random_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, material.reveal(), bound)
        if len(sealed) > self._limits.max_bytes:
            return
        self._drop(bound)
        self._entries[bound] = _Entry(sealed=sealed, asked_at=ticket.asked_at, lifetime=lifetime)
        self._bytes += len(sealed)
        self._shed(now)
        while len(self._entries) > self._limits.max_entries or self._bytes > self._limits.max_bytes:
            self._leave(next(iter(self._entries)))
            self._evictions += 1

    def drop(self, key: CacheKey) -> None:
        """Remove the entry of the key, if there is one."""
        self._drop(encoded(key))

    def clear(self) -> None:
        """Remove everything, refuse answers to earlier tickets, and replace the key of the cache."""
        self._entries.clear()
        self._bytes = 0
        self._clears += 1
        self._cipher = AESGCM(self._random_bytes(_KEY_BYTES))

    def counts(self) -> CacheCounts:
        """Return the counts now."""
        self._shed(self._clock.monotonic())
        return CacheCounts(
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            clears=self._clears,
            entries=len(self._entries),
            bytes=self._bytes,
        )

    def _shed(self, now: float) -> None:
        """Remove expired entries from the least recently used end, so that idle entries do not stay for ever."""
        while self._entries:
            bound, entry = next(iter(self._entries.items()))
            if not entry.is_expired(now):
                return
            self._leave(bound)

    def _drop(self, bound: bytes) -> None:
        if bound in self._entries:
            self._leave(bound)

    def _leave(self, bound: bytes) -> None:
        self._bytes -= len(self._entries.pop(bound).sealed)


def encoded(key: CacheKey) -> bytes:
    """Return the key as bytes. The entry is stored under them and bound to them."""
    ref, purpose = key
    return f"{purpose}:{ref}".encode()  # no purpose has a colon, and a ref has one spelling
