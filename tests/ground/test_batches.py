"""Calls that share one statement, and calls that are repeated."""

import asyncio
from dataclasses import dataclass, field

import pytest
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_incrementing

from hookseal.errors import Unavailable
from hookseal.ground.batches import MAX_ITEMS, MAX_RUNNING, SECOND_BATCH_ITEMS, Batch, Batches, Uncancellable, resolve
from hookseal.ground.clock import retried


@dataclass
class Work:
    """Answers a batch once `may_answer` is set, and records how many items it had."""

    batches: list[int] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def do(self, batch: Batch[int, int]) -> None:
        """Answer each item with its double, and a negative one with an error."""
        self.batches.append(len(batch))
        await self.may_answer.wait()
        for item, future in batch:
            resolve(future, 2 * item if item >= 0 else ValueError(str(item)))


async def turns() -> None:
    """Let the event loop run a few turns."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_debug_mode_of_asyncio_logs_no_item(caplog: pytest.LogCaptureFixture) -> None:
    """It logs each callback that was slow, with its arguments; the end of a long text is not masked there."""
    loop, token = asyncio.get_running_loop(), f"whst_{'t' * 30}THE-END-OF-A-TOKEN"
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # each is
    try:

        async def answer(batch: Batch[str, None]) -> None:
            for _, future in batch:
                resolve(future, None)

        await Batches(answer).add(token)
        await turns()
    finally:
        loop.set_debug(False)

    assert "Batches" in caplog.text
    assert "OF-A-TOKEN" not in caplog.text


@pytest.mark.req("DUR-03")
async def test_items_of_one_turn_form_a_batch() -> None:
    """Items of one turn form a batch; items that arrive while it runs form the next one, or a large second one."""
    work = Work()
    batches = Batches(work.do)
    futures = [batches.add(1) for _ in range(3)]
    await turns()
    futures += [batches.add(2) for _ in range(SECOND_BATCH_ITEMS - 1)]
    await turns()
    assert [3] == work.batches
    futures += [batches.add(3)]
    await turns()
    assert [3, SECOND_BATCH_ITEMS] == work.batches
    futures += [batches.add(4) for _ in range(MAX_ITEMS + 2)]
    await turns()
    assert MAX_RUNNING == len(work.batches)
    work.may_answer.set()

    numbers = [1] * 3 + [2] * (SECOND_BATCH_ITEMS - 1) + [3] + [4] * (MAX_ITEMS + 2)
    assert [2 * number for number in numbers] == await asyncio.gather(*futures)
    assert [3, SECOND_BATCH_ITEMS, MAX_ITEMS, 2] == work.batches


async def test_each_caller_gets_its_own_answer() -> None:
    work = Work()
    work.may_answer.set()
    batches = Batches(work.do)
    left, failed, kept = batches.add(1), batches.add(-2), batches.add(3)
    left.cancel()

    assert await kept == 6
    with pytest.raises(ValueError, match="-2"):
        await failed
    assert left.cancelled()


async def test_a_cancellation_waits_for_the_answer() -> None:
    """A task that is cancelled while it awaits an uncancellable future is cancelled once that is resolved."""
    work = Work()
    batches = Batches(work.do, Uncancellable)

    async def awaiting() -> int:
        return await batches.add(1)

    task = asyncio.create_task(awaiting())
    for _ in range(2):
        await turns()
        task.cancel()
    await turns()
    assert not task.done()
    work.may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_items_of_a_cancelled_batch_are_answered() -> None:
    """If the task of a batch is cancelled, as when the process ends, nobody waits for it for ever."""
    future = Batches(Work().do, Uncancellable).add(1)
    await turns()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait({future}, timeout=60)

    assert isinstance(future.exception(), Unavailable)


async def test_the_items_of_a_failed_batch_are_answered() -> None:
    """If the work itself raises, the callers that it has not answered get its error, and the next batch runs."""

    async def work(batch: Batch[int, int]) -> None:
        item, future = batch[0]
        resolve(future, item)
        if len(batch) > 1:
            raise KeyError("a column")

    batches = Batches(work, Uncancellable)
    answered, *left = [batches.add(number) for number in range(3)]
    _, waiting = await asyncio.wait({answered, *left}, timeout=5)

    assert not waiting
    assert 0 == answered.result()
    assert [KeyError, KeyError] == [type(each.exception()) for each in left]
    assert 4 == await batches.add(4)


async def test_an_error_that_no_item_gets_is_reported() -> None:
    """If the work raises after it has answered every item, the event loop gets the error."""
    reported: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.set_result(context["exception"]))

    async def work(batch: Batch[int, int]) -> None:
        for item, future in batch:
            resolve(future, item)
        raise KeyError("a column")

    assert 1 == await Batches(work).add(1)
    assert isinstance(await asyncio.wait_for(reported, 60), KeyError)


async def test_work_may_answer_after_its_end() -> None:
    """If the work ends without an error, an item that it has handed over can be answered later."""
    handed_over: Batch[int, int] = []

    async def work(batch: Batch[int, int]) -> None:
        handed_over.extend(batch)

    future = Batches(work).add(1)
    await turns()
    await turns()  # the work has ended, and the batch, too
    assert ([1], False) == ([item for item, _ in handed_over], future.done())

    resolve(handed_over[0][1], 2)
    assert 2 == await future


class Call:
    """Fails with these errors, one after another, then returns how often it was called. `slept` has the waits."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.number = 0
        self.slept: list[float] = []

    async def __call__(self) -> int:
        self.number += 1
        if self._errors:
            raise self._errors.pop(0)
        return self.number

    async def sleep(self, seconds: float) -> None:
        """Record the wait."""
        self.slept.append(seconds)

    def retrying(self) -> AsyncRetrying:
        """Return what tries three times, with a wait of one second and then of two."""
        return AsyncRetrying(
            sleep=self.sleep,
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(3),
            wait=wait_incrementing(start=1, increment=1),
            reraise=True,
        )


def never() -> AsyncRetrying:
    """Fail: nothing is to be retried."""
    pytest.fail("tenacity was asked although the call succeeded")


async def test_a_call_that_succeeds_asks_nobody() -> None:
    """It returns the result, and no object of tenacity is made."""
    assert await retried(Call(), on=Unavailable, retrying=never) == 1


async def test_a_failure_counts_as_the_first_try() -> None:
    """The waits and the number of tries are those that tenacity was given."""
    call = Call(Unavailable("one"), Unavailable("two"))
    assert await retried(call, on=Unavailable, retrying=call.retrying) == 3
    assert [1, 2] == call.slept


async def test_the_last_error_is_raised() -> None:
    """When tenacity stops, the caller gets the error of the last try."""
    call = Call(Unavailable("one"), Unavailable("two"), Unavailable("three"), Unavailable("four"))
    with pytest.raises(Unavailable, match="three"):
        await retried(call, on=Unavailable, retrying=call.retrying)
    assert call.number == 3


@pytest.mark.parametrize("errors", [(ValueError("bad"),), (Unavailable("one"), ValueError("bad"))])
async def test_other_errors_are_not_retried(errors: tuple[Exception, ...]) -> None:
    """An error of another kind is raised at once, on the first try and on a later one."""
    call = Call(*errors)
    with pytest.raises(ValueError, match="bad"):
        await retried(call, on=Unavailable, retrying=call.retrying)
    assert call.number == len(errors)
