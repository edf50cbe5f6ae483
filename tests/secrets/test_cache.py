"""The sealed cache: limited in age and size, and unreadable in the memory of the process."""

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hookseal.errors import SecretTampered
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose
from hookseal.secrets.resolve.cache import CacheCounts, CacheKey, CacheLimits, SealedCache, Ticket, encoded
from tests.doubles.clock import FakeClock
from tests.secrets.samples import NAME, OTHER_SECRET, OTHER_TENANT, SECRET, ref

pytestmark = pytest.mark.req("SEC-06", part="cache")


SIGNING = Purpose.WEBHOOK_SIGNING
KEY: CacheKey = (ref(1), SIGNING)
OTHER: CacheKey = (ref(2), SIGNING)
THIRD: CacheKey = (ref(3), SIGNING)
SEALED_BYTES = 12 + len(SECRET) + 16  # nonce, ciphertext, tag
NEARLY_ONE = 1 - 2**-53


def cache(
    clock: FakeClock | None = None,
    *,
    chance: Callable[[], float] = lambda: 0.0,
    random_bytes: Callable[[int], bytes] = os.urandom,
    **limits: int,
) -> SealedCache:
    """Return an empty cache with the default limits, except for the given ones."""
    return SealedCache(
        replace(CacheLimits(), **limits), clock=clock or FakeClock(), chance=chance, random_bytes=random_bytes
    )


def fill(held: SealedCache, *keys: CacheKey, material: SecretMaterial = SECRET) -> None:
    """Store the material under each key, as if a store had answered at once."""
    for key in keys:
        held.put(key, material, held.ticket())


def counts(**changes: int) -> CacheCounts:
    """Return counts that are 0, except for the given ones."""
    nothing = CacheCounts(hits=0, misses=0, evictions=0, clears=0, entries=0, bytes=0)
    return replace(nothing, **changes)


def test_the_default_limits_are_as_documented() -> None:
    assert (300, 10_000, 16 * 1024 * 1024) == (
        CacheLimits().ttl_seconds,
        CacheLimits().max_entries,
        CacheLimits().max_bytes,
    )


def test_a_cached_secret_can_be_read_repeatedly() -> None:
    held = cache()
    fill(held, KEY)

    assert SECRET == held.get(KEY)
    assert held.get(KEY) is not held.get(KEY)
    assert counts(hits=3, entries=1, bytes=SEALED_BYTES) == held.counts()


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "other",
    [
        (replace(ref(1), tenant=OTHER_TENANT), SIGNING),
        (replace(ref(1), name=NAME[:-1]), SIGNING),
        (ref(2), SIGNING),
        (ref(1, Provider.DB), SIGNING),
        (ref(1), Purpose.SENTINEL),
    ],
    ids=str,
)
def test_another_key_is_a_miss(other: CacheKey) -> None:
    held = cache()
    fill(held, KEY)
    assert held.get(other) is None

    held._entries[encoded(other)] = held._entries[encoded(KEY)]
    held._bytes *= 2
    with pytest.raises(SecretTampered):
        held.get(other)
    assert held.get(other) is None
    assert counts(hits=1, misses=3, entries=1, bytes=SEALED_BYTES) == (held.get(KEY), held.counts())[1]


def test_an_altered_entry_is_refused_and_removed() -> None:
    for position in range(SEALED_BYTES):
        held = cache()
        fill(held, KEY)
        entry = held._entries[encoded(KEY)]
        flipped = bytes(byte ^ (at == position) for at, byte in enumerate(entry.sealed))
        held._entries[encoded(KEY)] = replace(entry, sealed=flipped)

        with pytest.raises(SecretTampered) as caught:
            held.get(KEY)
        assert SECRET.reveal().decode() not in f"{caught.value!r} {vars(caught.value)}"
        assert caught.value.__cause__ is None
        assert held.get(KEY) is None, f"byte {position}"
        assert counts(misses=2) == held.counts()


@pytest.mark.req("SEC-15", part="secrets")
def test_the_cache_holds_no_plaintext() -> None:
    held = cache()
    fill(held, KEY, OTHER, material=SecretMaterial(SECRET.reveal() * 20))

    def reached(thing: object, seen: set[int]) -> Iterator[object]:
        if id(thing) in seen or isinstance(thing, type | type(os)) or callable(thing):
            return
        seen.add(id(thing))
        yield thing
        for inner in gc.get_referents(thing):
            yield from reached(inner, seen)

    found = [thing for thing in reached(held, set()) if isinstance(thing, bytes)]
    assert 2 == len([thing for thing in found if len(thing) > len(SECRET) * 20])
    assert 2 == len({thing[28:] for thing in found if len(thing) > len(SECRET) * 20})
    assert [] == [thing for thing in found if SECRET.reveal() in thing]
    assert SECRET.reveal().decode() not in repr(held._entries)


def test_each_entry_has_a_new_nonce_under_one_key() -> None:
    asked: list[int] = []

    def random_bytes(number: int) -> bytes:
        asked.append(number)
        return len(asked).to_bytes(number, "big")

    held = cache(random_bytes=random_bytes)
    fill(held, KEY, OTHER, KEY)

    assert [32, 12, 12, 12] == asked
    assert {(4).to_bytes(12, "big"), (3).to_bytes(12, "big")} == {entry.sealed[:12] for entry in held._entries.values()}


@pytest.mark.parametrize(("chance", "lifetime"), [(0.0, 300.0), (0.5, 225.0), (NEARLY_ONE, 150.0)])
def test_an_entry_lives_from_half_to_the_whole_ttl(chance: float, lifetime: float) -> None:
    clock = FakeClock()
    held = cache(clock, chance=lambda: chance)
    fill(held, KEY)

    clock.elapsed = lifetime - 0.001
    assert SECRET == held.get(KEY)
    clock.elapsed = lifetime
    assert held.get(KEY) is None
    assert counts(hits=1, misses=1) == held.counts()


def test_the_age_counts_from_the_request() -> None:
    clock = FakeClock()
    held = cache(clock)
    ticket = held.ticket()
    clock.elapsed = 299.0
    held.put(KEY, SECRET, ticket)
    assert SECRET == held.get(KEY)

    clock.elapsed = 300.0
    assert held.get(KEY) is None
    held.put(KEY, SECRET, ticket)
    assert counts(hits=1, misses=1) == held.counts()


def test_a_ttl_of_0_caches_nothing() -> None:
    held = cache(ttl_seconds=0)
    fill(held, KEY)

    assert held.get(KEY) is None
    assert counts(misses=1) == held.counts()


def test_the_least_recently_used_is_evicted() -> None:
    held = cache(max_entries=2)
    fill(held, KEY, OTHER)
    held.get(KEY)
    fill(held, THIRD)

    assert [SECRET, None, SECRET] == [held.get(KEY), held.get(OTHER), held.get(THIRD)]
    assert counts(hits=3, misses=1, evictions=1, entries=2, bytes=2 * SEALED_BYTES) == held.counts()


def test_entries_are_evicted_to_make_room() -> None:
    held = cache(max_bytes=3 * SEALED_BYTES - 1)
    fill(held, KEY, OTHER, THIRD)
    assert counts(evictions=1, entries=2, bytes=2 * SEALED_BYTES) == held.counts()

    large = SecretMaterial(bytes(3 * SEALED_BYTES - 1 - 28))
    fill(held, KEY, material=large)
    assert large == held.get(KEY)
    assert counts(hits=1, evictions=3, entries=1, bytes=3 * SEALED_BYTES - 1) == held.counts()


def test_a_too_large_secret_evicts_nothing() -> None:
    held = cache(max_bytes=SEALED_BYTES)
    fill(held, KEY)
    fill(held, OTHER, material=SecretMaterial(SECRET.reveal() + b"x"))

    assert [SECRET, None] == [held.get(KEY), held.get(OTHER)]
    assert 0 == held.counts().evictions


def test_a_second_answer_replaces_the_first() -> None:
    clock = FakeClock()
    held = cache(clock)
    fill(held, KEY)
    clock.elapsed = 200.0
    fill(held, KEY, material=OTHER_SECRET)
    clock.elapsed = 400.0

    assert OTHER_SECRET == held.get(KEY)
    assert counts(hits=1, entries=1, bytes=SEALED_BYTES) == held.counts()


def test_clear_empties_the_cache_and_changes_its_key() -> None:
    held = cache()
    fill(held, KEY)
    kept = held._entries[encoded(KEY)]
    held.clear()
    assert held.get(KEY) is None
    assert counts(misses=1, clears=1) == held.counts()

    held._entries[encoded(KEY)] = kept
    held._bytes = len(kept.sealed)
    with pytest.raises(SecretTampered):
        held.get(KEY)


def test_an_answer_from_before_a_clear_is_not_cached() -> None:
    held = cache()
    late = held.ticket()
    held.clear()
    held.put(KEY, SECRET, late)
    assert held.get(KEY) is None

    fill(held, KEY, material=OTHER_SECRET)
    held.put(KEY, SECRET, late)
    assert OTHER_SECRET == held.get(KEY)


def test_an_expired_entry_is_removed() -> None:
    clock = FakeClock()
    held = cache(clock)
    fill(held, KEY)
    clock.elapsed = 100.0
    fill(held, OTHER)
    clock.elapsed = 300.0

    assert SECRET == held.get(OTHER)
    assert [encoded(OTHER)] == list(held._entries)
    clock.elapsed = 400.0
    assert counts(hits=1) == held.counts()


@dataclass(frozen=True, kw_only=True)
class Question:
    """An unanswered request to a store. Later requests have higher numbers."""

    number: int
    key: CacheKey
    ticket: Ticket


class Laws(RuleBasedStateMachine):
    """For any order of events, a cached secret is younger than the TTL and newer than the last error and `clear`."""

    TTL_SECONDS, MAX_ENTRIES, MAX_BYTES = 10, 3, 300
    KEYS = tuple((ref(version), purpose) for version in (1, 2, 3) for purpose in (SIGNING, Purpose.SENTINEL))

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.chance = 0.0
        self.held = cache(
            self.clock,
            chance=lambda: self.chance,
            ttl_seconds=self.TTL_SECONDS,
            max_entries=self.MAX_ENTRIES,
            max_bytes=self.MAX_BYTES,
        )
        self.asked: list[Question] = []
        self.open: list[Question] = []
        self.forgotten = dict.fromkeys(self.KEYS, -1)

    @rule(key=st.sampled_from(KEYS))
    def ask(self, key: CacheKey) -> None:
        """A miss requests the secret from the store; a hit is young and was not discarded."""
        found = self.held.get(key)
        if found is None:
            question = Question(number=len(self.asked), key=key, ticket=self.held.ticket())
            self.asked.append(question)
            self.open.append(question)
            return
        number = int.from_bytes(found.reveal()[:4], "big")
        assert key == self.asked[number].key
        assert self.clock.elapsed - self.asked[number].ticket.asked_at < self.TTL_SECONDS
        assert self.forgotten[key] < number

    @precondition(lambda self: self.open)
    @rule(at=st.integers(min_value=0), size=st.integers(max_value=300, min_value=0), chance=st.floats(0, NEARLY_ONE))
    def answer(self, at: int, size: int, chance: float) -> None:
        """An answer arrives, unless an error came after its request: the reader has one request at a time."""
        question = self.open.pop(at % len(self.open))
        self.chance = chance
        is_late = question.ticket.clears != self.held.counts().clears
        if is_late or self.forgotten[question.key] < question.number:
            material = SecretMaterial(question.number.to_bytes(4, "big") + bytes(size))
            self.held.put(question.key, material, question.ticket)

    @rule(key=st.sampled_from(KEYS))
    def fail(self, key: CacheKey) -> None:
        """An error drops the entry."""
        self.held.drop(key)
        self.forgotten[key] = len(self.asked) - 1

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.elapsed += seconds

    @rule()
    def clear(self) -> None:
        """The cache is cleared."""
        self.held.clear()
        self.forgotten = dict.fromkeys(self.KEYS, len(self.asked) - 1)

    @invariant()
    def is_bounded_and_counted(self) -> None:
        """The limits hold, and the counts match the entries."""
        now = self.held.counts()
        assert now.entries <= self.MAX_ENTRIES
        assert now.bytes <= self.MAX_BYTES
        assert now.entries == len(self.held._entries)
        assert now.bytes == sum(len(entry.sealed) for entry in self.held._entries.values())


TestLaws = Laws.TestCase
