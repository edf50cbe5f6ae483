"""The sealed cache: versions of secrets for a while, each encrypted under a key that only this process has.

A version never changes, so what is cached can only be older than the store's last word about it, and never
by more than the TTL: an age is counted from before the store was asked, and nothing makes it younger.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hookseal.ground.clock import Clock
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretTampered
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12

CacheKey = tuple[SecretRef, Purpose]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """How long and how much is cached. With a TTL of 0 nothing is; bytes are counted as they are sealed."""

    ttl_seconds: int = 300
    max_entries: int = 10_000
    max_bytes: int = 16_777_216


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCounts:
    """What the cache did since it was made, and what it holds now."""

    hits: int
    misses: int
    evictions: int
    clears: int
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The moment at which a store was about to be asked: what it answers may be cached as of then."""

    asked_at: float
    clears: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    sealed: bytes
    asked_at: float
    lifetime: float

    def is_over(self, now: float) -> bool:
        return now - self.asked_at >= self.lifetime


class SealedCache:
    """Holds sealed versions, least recently used first to go, none longer than its TTL.

    `chance` gives a number in [0, 1): each entry lives for the TTL less up to half of it, so that what was
    fetched together does not run out together.
    """

    def __init__(
        self, limits: CacheLimits, *, clock: Clock, chance: Callable[[], float], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._chance = chance
        self._random_bytes = random_bytes
        self._cipher = AESGCM(random_bytes(_KEY_BYTES))
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # by what each is bound to: see `spelled`
        self._hits = self._misses = self._evictions = self._clears = self._bytes = 0

    def get(self, key: CacheKey) -> SecretMaterial | None:
        """Return what is held under the key, opened for this use; None if nothing is, or its time is over.

        Raises `SecretTampered`, and holds it no longer, if it was altered or moved to another key.
        """
        now = self._clock.monotonic()
        self._shed(now)
        bound = spelled(key)
        entry = self._entries.get(bound)
        if entry is None or entry.is_over(now):
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
        """Return the ticket that `put` wants; take it before the store is asked."""
        return Ticket(asked_at=self._clock.monotonic(), clears=self._clears)

    def put(self, key: CacheKey, material: SecretMaterial, ticket: Ticket) -> None:
        """Hold what the store answered, in place of what is held under the key; others leave to make room.

        It is not held if the cache was cleared since the ticket, if it is too old by now, or if it is larger
        than all that may be held.
        """
        now = self._clock.monotonic()
        lifetime = self._limits.ttl_seconds * (1 - self._chance() / 2)
        if ticket.clears != self._clears or now - ticket.asked_at >= lifetime:
            return
        bound, nonce = spelled(key), self._random_bytes(_NONCE_BYTES)
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
        """Hold nothing under the key."""
        self._drop(spelled(key))

    def clear(self) -> None:
        """Hold nothing, and never what was asked for before now. The key goes too: what it sealed is noise."""
        self._entries.clear()
        self._bytes = 0
        self._clears += 1
        self._cipher = AESGCM(self._random_bytes(_KEY_BYTES))

    def counts(self) -> CacheCounts:
        """Return the counts as they are now."""
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
        """Let go of what is over and was not used for longest, so that no idle entry stays for good."""
        while self._entries:
            bound, entry = next(iter(self._entries.items()))
            if not entry.is_over(now):
                return
            self._leave(bound)

    def _drop(self, bound: bytes) -> None:
        if bound in self._entries:
            self._leave(bound)

    def _leave(self, bound: bytes) -> None:
        self._bytes -= len(self._entries.pop(bound).sealed)


def spelled(key: CacheKey) -> bytes:
    """Return the key as bytes, under which its entry is held and to which the entry is sealed."""
    ref, purpose = key
    return f"{purpose}:{ref}".encode()  # no purpose has a colon, and a ref has one spelling
