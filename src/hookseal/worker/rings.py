"""arq's worker as we run it: the same queue, keys and jobs, with a way of our own to take and to answer them.

Anybody who may write to Redis can put there what arq's own loop dies of, passes by for ever, or loads into memory. None
of it may end the loop or hold it up, nor be there again at the next look. Whatever is thrown out, PostgreSQL knows what
is due, and the sweep rings it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from arq.worker import Worker

from hookseal.ground.errors import Malformed
from hookseal.queue.taking import Dropped, DropReason, RingAgain, Taking, arguments_of


class RingWorker(Worker):
    """Takes rings from `taking` and has each answered by `deliver`, within the time that arq was given for a job.

    Says by `beaten` that its loop moved, and by `dropped` what was thrown out, and why.
    """

    def __init__(
        self,
        *,
        taking: Taking,
        deliver: Callable[..., Awaitable[None]],
        beaten: Callable[[], None],
        dropped: Callable[[Dropped], None],
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._taking = taking
        self._deliver = deliver
        self._beaten = beaten
        self._dropped = dropped
        self._number = count()
        self._answering: set[str] = set()

    async def _poll_iteration(self) -> None:
        """Forget what has ended, and start what is due and finds room. Raises what an outage of Redis raises."""
        for number, task in list(self.tasks.items()):
            if task.done():
                del self.tasks[number]
                if not task.cancelled():
                    task.result()
        room = self.max_jobs - len(self.tasks)
        if self.allow_pick_jobs and room > 0:
            await self._start(room)
        await self.heart_beat()

    async def heart_beat(self) -> None:
        """Say that the loop moved. arq's own record in Redis says less than our probes, so none is kept."""
        self._beaten()

    async def _start(self, room: int) -> None:
        taken = await self._taking.take(room)
        for dropped in taken.dropped:
            self._dropped(dropped)
        for job_id, job in taken.jobs.items():
            if job_id not in self._answering:  # it takes longer than it was held, or Redis lost what held it
                self._answering.add(job_id)
                self.tasks[str(next(self._number))] = self.loop.create_task(self._answer(job_id, job))

    async def _answer(self, job_id: str, job: bytes) -> None:
        again: RingAgain | None = RingAgain()  # if it is cut off, another worker may take it at once
        try:
            again = await self._answered(job_id, job)
        finally:
            self._answering.discard(job_id)  # once it is put back it may be taken again
            await asyncio.shield(self._settle(job_id, again))

    async def _answered(self, job_id: str, job: bytes) -> RingAgain | None:
        """Have the ring answered; return how it is put back, None if it is over."""
        try:
            arguments = arguments_of(job)
            async with asyncio.timeout(self.job_timeout_s):
                await self._deliver({}, *arguments)
        except RingAgain as again:
            return again
        except Malformed as error:
            self._dropped(Dropped(DropReason.UNREADABLE, job_id=job_id, detail=str(error)))
        except Exception as error:  # noqa: BLE001 -- reported; if the delivery is due still, the sweep rings it again
            self._dropped(Dropped(DropReason.UNFINISHED, job_id=job_id, detail=type(error).__name__))
        return None

    async def _settle(self, job_id: str, again: RingAgain | None) -> None:
        if again is None:
            await self._taking.end(job_id)
        else:
            await self._taking.put_back(job_id, again)
