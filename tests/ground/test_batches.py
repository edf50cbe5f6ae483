"""Items are grouped into batches without a timer."""

import asyncio
from dataclasses import dataclass, field

import pytest

from hookseal.errors import Unavailable
from hookseal.ground.batches import MAX_ITEMS, MAX_RUNNING, SECOND_BATCH_ITEMS, Batch, Batches, Uncancellable, resolve


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
    """A cancelled caller gets no answer and does not affect the others; an error reaches only its own caller."""
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
