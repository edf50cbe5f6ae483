"""The reader: concurrent callers share one request, an attempt has one budget, and the statistics are exact."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hookseal.errors import (
    CannotSign,
    Cause,
    Defect,
    SecretDenied,
    SecretDestroyed,
    SecretError,
    SecretNotFound,
    SecretTampered,
    SecretUnavailable,
)
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose
from hookseal.secrets.resolve.reader import BUDGET_SECONDS, SecretReader, Statistics
from tests.doubles.clock import FakeClock
from tests.secrets.doubles import ScriptedStore, reader_on, tasks_idle
from tests.secrets.samples import NAME, OTHER_SECRET, OTHER_TENANT, READ_AT, SECRET, TENANT, ref

SIGNING = Purpose.WEBHOOK_SIGNING
SHORT_SECONDS = 0.25  # real time: the budget in tests that wait for its end, on a machine that may pause
DEFINITIVE = [SecretNotFound(), SecretDenied(), SecretDestroyed(), SecretTampered()]


@pytest.fixture
async def store() -> ScriptedStore:
    """Return a store with two versions of the endpoint's secret, and another tenant's secret of the same name."""
    store = ScriptedStore()
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    await store.put(OTHER_TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    return store


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that does not advance by itself."""
    return FakeClock()


@pytest.fixture
def reader(store: ScriptedStore, clock: FakeClock) -> SecretReader:
    """Return a reader on this store, with the default limits and budget."""
    return reader_on(store, clock)


@pytest.fixture(autouse=True)
async def unseen() -> AsyncIterator[list[dict[str, Any]]]:
    """Fail the test if the event loop reports an unhandled exception or a lost task."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    gc.disable()  # so that what is lost stays young, and a look at the young objects, which is quick, finds it
    yield complaints
    gc.enable()
    gc.collect(1)
    assert [] == complaints


@pytest.fixture
def silent(store: ScriptedStore) -> Iterator[asyncio.Event]:
    """Make the store wait with the first version until this event is set; it is set at the end of the test."""
    answered = asyncio.Event()
    store.silent[ref(1)] = answered
    yield answered
    answered.set()


async def one(reader: SecretReader, version: int = 1) -> SecretMaterial:
    (material,) = await reader.read([ref(version)], purpose=SIGNING)
    return material


def begun(reader: SecretReader, version: int = 1) -> asyncio.Task[SecretMaterial]:
    return asyncio.create_task(one(reader, version))


async def asked(store: ScriptedStore, times: int) -> None:
    """Let all tasks run, and assert how often the store was asked in total."""
    await tasks_idle()
    assert times == len(store.fetched)


async def refused(reader: SecretReader, version: int = 1) -> CannotSign:
    """Return the error that reading one version raises."""
    with pytest.raises(CannotSign) as caught:
        await one(reader, version)
    return caught.value


def figures(**changes: int) -> Statistics:
    """Return statistics that are 0, except for the given ones; the bytes match the entries."""
    names = ("hits", "misses", "definitive_failures", "transient_failures", "evictions", "clears", "entries")
    values = dict.fromkeys(names, 0) | changes
    return Statistics(**values, bytes=values["entries"] * (len(SECRET) + 28))


@pytest.mark.req("SEC-06", part="cache")
async def test_the_store_is_asked_once_for_each_version(reader: SecretReader, store: ScriptedStore) -> None:
    for _ in range(3):
        assert (OTHER_SECRET, SECRET) == await reader.read([ref(2), ref(1)], purpose=SIGNING)

    assert [ref(2), ref(1)] == store.fetched
    assert figures(hits=4, misses=2, entries=2) == reader.statistics()


@pytest.mark.req("SEC-08")
async def test_equal_names_of_two_tenants_are_two_secrets(reader: SecretReader, store: ScriptedStore) -> None:
    foreign = replace(ref(1), tenant=OTHER_TENANT)

    assert (SECRET, OTHER_SECRET) == await reader.read([ref(1), foreign], purpose=SIGNING)
    assert [ref(1), foreign] == store.fetched


@pytest.mark.req("SEC-08")
async def test_tenants_share_no_request(reader: SecretReader, store: ScriptedStore, silent: asyncio.Event) -> None:
    foreign = replace(ref(1), tenant=OTHER_TENANT)
    first = begun(reader)
    await asked(store, 1)

    assert (OTHER_SECRET,) == await reader.read([foreign], purpose=SIGNING)
    assert [ref(1), foreign] == store.fetched
    silent.set()
    assert SECRET == await first


@pytest.mark.req("SEC-06", part="cache")
async def test_another_purpose_is_a_new_request(reader: SecretReader) -> None:
    await one(reader)

    with pytest.raises(SecretDenied):
        await reader.read([ref(1)], purpose=Purpose.SENTINEL)


@pytest.mark.req("SEC-06", part="cache")
async def test_after_the_ttl_the_store_is_asked_again(
    reader: SecretReader, store: ScriptedStore, clock: FakeClock
) -> None:
    await one(reader)
    clock.elapsed = 300.0
    await one(reader)

    assert [ref(1), ref(1)] == store.fetched
    assert figures(misses=2, entries=1) == reader.statistics()


@pytest.mark.req("SEC-06", part="fail-closed")
@pytest.mark.parametrize("error", [*DEFINITIVE, SecretUnavailable()], ids=repr)
async def test_an_error_returns_no_older_answer(
    reader: SecretReader, store: ScriptedStore, clock: FakeClock, error: Exception
) -> None:
    await one(reader)
    clock.elapsed = 300.0
    store.errors[ref(1)] = error

    for _ in range(3):
        assert type(error) is type(await refused(reader))
    assert 0 == reader.statistics().entries
    del store.errors[ref(1)]
    assert SECRET == await one(reader)


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("error", DEFINITIVE, ids=repr)
async def test_a_definitive_error_is_raised_at_once(
    reader: SecretReader, store: ScriptedStore, clock: FakeClock, error: Exception
) -> None:
    store.errors[ref(1)] = error

    assert error is await refused(reader)
    assert ([ref(1)], []) == (store.fetched, clock.slept)
    assert figures(misses=1, definitive_failures=1) == reader.statistics()


@pytest.mark.req("SEC-07")
async def test_a_transient_error_is_retried(reader: SecretReader, store: ScriptedStore, clock: FakeClock) -> None:
    store.passing = [SecretUnavailable(), SecretUnavailable()]

    assert SECRET == await one(reader)
    assert ([ref(1)] * 3, 2) == (store.fetched, len(clock.slept))
    assert clock.slept[0] <= 0.05
    assert clock.slept[1] <= 0.1
    assert figures(misses=1, entries=1) == reader.statistics()


@pytest.mark.req("SEC-07")
async def test_at_the_end_of_the_budget_the_store_is_unavailable(
    reader: SecretReader, store: ScriptedStore, clock: FakeClock
) -> None:
    store.errors[ref(1)] = SecretUnavailable("down")
    error = await refused(reader)

    assert 2.0 == BUDGET_SECONDS
    assert 1.0 <= clock.elapsed < 2.0
    assert len(store.fetched) >= 4
    assert (
        "the secret store of provider dev gave no answer within the 2 s that an attempt has: "
        "repair it, or the connection to it" == str(error)
    )
    assert "down" == str(error.__cause__)
    assert figures(misses=1, transient_failures=1) == reader.statistics()


SEALED = SecretUnavailable("OpenBao is sealed: unseal it", cause=Cause.SEALED)
THROTTLED = SecretUnavailable("AWS limits requests: raise the quota", cause=Cause.THROTTLED)
GONE = SecretUnavailable("it does not answer")


@pytest.mark.req("SEC-07", part="causes")
@pytest.mark.parametrize(
    ("answers", "last"),
    [
        ([SEALED] * 50, SEALED),
        ([THROTTLED, SEALED, *[GONE] * 50], SEALED),
        ([GONE, THROTTLED, *[GONE] * 50], THROTTLED),
    ],
)
async def test_what_the_store_answered_last_is_reported(
    reader: SecretReader, store: ScriptedStore, answers: list[Exception], last: SecretUnavailable
) -> None:
    store.passing = list(answers)
    error = await refused(reader)

    assert isinstance(error, SecretUnavailable)
    assert (str(last), last.cause) == (str(error), error.cause)


@pytest.mark.req("SEC-07", part="causes")
async def test_every_caller_learns_the_cause(store: ScriptedStore) -> None:
    """A store that gives its cause and hangs afterwards: who began the read and who joined it learn the cause."""
    released = asyncio.Event()

    class Hanging(FakeClock):
        async def sleep(self, _seconds: float) -> None:
            store.silent[ref(1)] = released

    reader = reader_on(store, Hanging(), budget_seconds=SHORT_SECONDS)
    store.passing = [SEALED]

    outcomes = await asyncio.gather(begun(reader), begun(reader), return_exceptions=True)
    released.set()
    assert [str(SEALED)] * 2 == [str(outcome) for outcome in outcomes]
    assert [ref(1)] * 2 == store.fetched


@pytest.mark.req("SEC-07")
async def test_both_secrets_of_an_attempt_share_one_budget(
    reader: SecretReader, store: ScriptedStore, clock: FakeClock
) -> None:
    store.passing = [SecretUnavailable()] * 5
    store.errors[ref(1)] = SecretUnavailable()

    with pytest.raises(SecretUnavailable):
        await reader.read([ref(2), ref(1)], purpose=SIGNING)
    assert ref(1) in store.fetched
    assert clock.elapsed < 2.0


@pytest.mark.req("SEC-07")
async def test_a_hanging_store_is_unavailable_after_two_seconds(reader: SecretReader, silent: asyncio.Event) -> None:
    started = asyncio.get_running_loop().time()
    waiters = [begun(reader) for _ in range(3)]
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)

    assert 1.9 < asyncio.get_running_loop().time() - started < 20  # the upper bound only excludes a hang
    assert [SecretUnavailable] * 3 == [type(outcome) for outcome in outcomes]
    assert figures(misses=3, transient_failures=3) == reader.statistics()


@pytest.mark.req("SEC-07")
async def test_after_a_hang_the_store_is_asked_anew(store: ScriptedStore, silent: asyncio.Event) -> None:
    reader = reader_on(store, budget_seconds=SHORT_SECONDS)
    assert SecretUnavailable is type(await refused(reader))
    silent.set()

    assert SECRET == await one(reader)
    assert [ref(1)] * 2 == store.fetched


@pytest.mark.req("SEC-07")
async def test_a_late_caller_has_its_own_budget(
    reader: SecretReader, store: ScriptedStore, clock: FakeClock, silent: asyncio.Event
) -> None:
    first = begun(reader)
    await asked(store, 1)
    clock.elapsed = 1.5
    second = begun(reader)
    await tasks_idle()
    clock.elapsed = 2.0
    store.passing = [SecretUnavailable()]
    silent.set()

    first_outcome, second_outcome = await asyncio.gather(first, second, return_exceptions=True)
    assert SecretUnavailable is type(first_outcome)
    assert SECRET == second_outcome
    assert [ref(1)] * 2 == store.fetched
    assert figures(misses=2, transient_failures=1, entries=1) == reader.statistics()


@pytest.mark.req("SEC-07")
async def test_a_caller_without_time_is_refused(store: ScriptedStore, clock: FakeClock) -> None:
    reader = reader_on(store, clock, budget_seconds=1.0)
    store.silent[ref(1)] = asyncio.Event()
    store.errors[ref(1)] = SecretUnavailable()
    waiters = [begun(reader), begun(reader)]
    await asked(store, 1)
    clock.elapsed = 5.0
    store.silent[ref(1)].set()

    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert [SecretUnavailable] * 2 == [type(outcome) for outcome in outcomes]
    assert [ref(1)] == store.fetched


@pytest.mark.req("SEC-06", part="single-flight")
async def test_concurrent_misses_share_one_request(
    reader: SecretReader, store: ScriptedStore, silent: asyncio.Event
) -> None:
    waiters = [begun(reader) for _ in range(100)]
    assert OTHER_SECRET == await one(reader, 2)
    silent.set()

    assert [SECRET] * 100 == await asyncio.gather(*waiters)
    assert [ref(1), ref(2)] == sorted(store.fetched, key=str)
    assert figures(misses=101, entries=2) == reader.statistics()


@pytest.mark.req("SEC-06", part="single-flight")
@pytest.mark.parametrize("error", [SecretDestroyed(), Defect()], ids=repr)
async def test_an_error_is_shared(
    reader: SecretReader, store: ScriptedStore, silent: asyncio.Event, error: Exception
) -> None:
    store.errors[ref(1)] = error
    waiters = [begun(reader) for _ in range(10)]
    await asked(store, 1)
    silent.set()

    assert [error] * 10 == await asyncio.gather(*waiters, return_exceptions=True)
    assert [ref(1)] == store.fetched
    del store.errors[ref(1)]
    assert SECRET == await one(reader)
    definitive = 10 if isinstance(error, SecretError) else 0
    assert figures(misses=11, definitive_failures=definitive, entries=1) == reader.statistics()


@pytest.mark.req("SEC-06", part="single-flight")
@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_a_cancelled_caller_does_not_affect_others(
    reader: SecretReader, store: ScriptedStore, silent: asyncio.Event, leaver: int
) -> None:
    waiters = [begun(reader) for _ in range(3)]
    await asked(store, 1)
    waiters[leaver].cancel()
    await asyncio.wait({waiters[leaver]})
    silent.set()

    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert [n == leaver for n in range(3)] == [isinstance(o, asyncio.CancelledError) for o in outcomes]
    assert [SECRET] * 2 == [outcome for outcome in outcomes if isinstance(outcome, SecretMaterial)]
    assert [ref(1)] == store.fetched
    assert figures(misses=3, entries=1) == reader.statistics()


@pytest.mark.req("SEC-06", part="single-flight")
@pytest.mark.parametrize("error", [None, SecretDestroyed(), Defect()], ids=repr)
async def test_a_request_without_callers_still_ends(
    reader: SecretReader, store: ScriptedStore, silent: asyncio.Event, error: Exception | None
) -> None:
    """If all callers are cancelled, the request still ends: an answer is cached, and the loop reports no error."""
    if error is not None:
        store.errors[ref(1)] = error
    waiters = [begun(reader) for _ in range(3)]
    await asked(store, 1)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    del waiters, waiter
    gc.collect()
    running = reader._flights._running
    assert 1 == len(running)
    silent.set()
    await asyncio.wait(set(running))

    assert figures(misses=3, entries=0 if error else 1) == reader.statistics()
    assert (set(), {}) == (running, reader._flights._joinable)


@pytest.mark.req("SEC-06", part="single-flight")
async def test_a_cancelled_request_leaves_nothing(
    reader: SecretReader, store: ScriptedStore, silent: asyncio.Event
) -> None:
    waiter = begun(reader)
    await asked(store, 1)
    (flight,) = reader._flights._running
    flight.cancel()

    await asyncio.wait({waiter})
    assert waiter.cancelled()
    assert figures(misses=1) == reader.statistics()
    assert (set(), {}) == (reader._flights._running, reader._flights._joinable)


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_a_higher_epoch_clears_the_cache(reader: SecretReader, store: ScriptedStore) -> None:
    for epoch, times in [(7, 1), (7, 1), (8, 2), (8, 2), (7, 2), (0, 2), (10, 3), (9, 3)]:
        reader.use_epoch((0, epoch), READ_AT)
        await one(reader)
        assert [ref(1)] * times == store.fetched, epoch

    assert figures(hits=5, misses=3, clears=2, entries=1) == reader.statistics()


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_a_lower_epoch_read_later_clears_the_cache(reader: SecretReader, store: ScriptedStore) -> None:
    highest = 10**15
    for epoch, seconds, times in [(3, 0, 1), (highest, 10, 2), (1, 11.9, 2), (1, 12, 3), (highest, 12, 4), (2, 14, 5)]:
        reader.use_epoch((0, epoch), READ_AT + timedelta(seconds=seconds))
        await one(reader)
        assert [ref(1)] * times == store.fetched, (epoch, seconds)


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_a_request_from_before_a_clear_is_not_shared(
    reader: SecretReader, store: ScriptedStore, silent: asyncio.Event
) -> None:
    reader.use_epoch((0, 1), READ_AT)
    before = begun(reader)
    await asked(store, 1)
    await store.destroy(ref(1))
    reader.use_epoch((0, 2), READ_AT)
    store.silent = {}

    assert SecretDestroyed is type(await refused(reader))
    silent.set()
    assert SECRET == await before
    assert SecretDestroyed is type(await refused(reader))
    assert figures(misses=3, definitive_failures=2, clears=1) == reader.statistics()


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_an_older_request_does_not_end_a_newer_one(
    reader: SecretReader, store: ScriptedStore, silent: asyncio.Event
) -> None:
    reader.use_epoch((0, 1), READ_AT)
    before = begun(reader)
    await asked(store, 1)
    reader.use_epoch((0, 2), READ_AT)
    store.silent[ref(1)] = asyncio.Event()
    after = begun(reader)
    await asked(store, 2)
    silent.set()
    await before
    joined = begun(reader)
    store.silent[ref(1)].set()

    assert [SECRET] * 2 == list(await asyncio.gather(after, joined))
    assert [ref(1)] * 2 == store.fetched


@pytest.mark.req("SEC-06", part="fail-closed")
async def test_an_error_drops_the_cached_secret(
    reader: SecretReader, store: ScriptedStore, silent: asyncio.Event
) -> None:
    reader.use_epoch((0, 1), READ_AT)
    before = begun(reader)
    await asked(store, 1)
    reader.use_epoch((0, 2), READ_AT)
    store.silent = {}
    assert SECRET == await one(reader)
    store.errors[ref(1)] = SecretDestroyed()
    silent.set()

    assert SecretDestroyed is type((await asyncio.gather(before, return_exceptions=True))[0])
    assert SecretDestroyed is type(await refused(reader))
    assert [ref(1)] * 3 == store.fetched


@pytest.mark.req("SEC-06", part="cache")
async def test_an_altered_entry_is_a_definitive_error(reader: SecretReader, store: ScriptedStore) -> None:
    await one(reader)
    (key, entry) = next(iter(reader._cache._entries.items()))
    reader._cache._entries[key] = replace(entry, sealed=entry.sealed[:-1] + bytes([entry.sealed[-1] ^ 1]))

    assert SecretTampered is type(await refused(reader))
    assert SECRET == await one(reader)
    assert figures(misses=3, definitive_failures=1, entries=1) == reader.statistics()


@pytest.mark.req("SEC-06", part="cache")
async def test_without_a_cache_every_read_asks(store: ScriptedStore) -> None:
    reader = reader_on(store, ttl_seconds=0)
    assert [SECRET, SECRET] == [await one(reader), await one(reader)]
    assert [SECRET, SECRET] == list(await asyncio.gather(begun(reader), begun(reader)))

    assert [ref(1)] * 3 == store.fetched
    assert figures(misses=4) == reader.statistics()


async def test_the_providers_are_those_of_the_store(reader: SecretReader, store: ScriptedStore) -> None:
    assert (store.provider, store.providers) == (reader.provider, reader.providers)
