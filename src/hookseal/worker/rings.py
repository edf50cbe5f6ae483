"""arq's worker as we run it: it takes rings, and throws out at once what can be nobody's.

Anybody who may write to Redis can put there what arq's own loop dies of, or what it passes by for ever. Neither may
end the loop, nor be there again at the next look. Whatever is thrown out, PostgreSQL knows what is due and rings it.
"""

from collections.abc import Callable
from typing import Final

from arq.constants import abort_jobs_ss, in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq.worker import Worker
from redis.exceptions import RedisError, ResponseError

_POISONED: Final = ("WRONGTYPE", "value is not an integer", "increment or decrement would overflow")


class RingWorker(Worker):
    """Tells by `beaten` that its loop moved, and by `dropped` the id of what it threw out, and why."""

    beaten: Callable[[], None]
    dropped: Callable[[str, str], None]

    async def heart_beat(self) -> None:
        """Tell that the loop moved. arq's own record in Redis says less than our probes, so none is kept."""
        self.beaten()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start what has a readable id and a time at which it is due; what has not is thrown out.

        What runs here already, of a ring that Redis lost or holds no more, is not started again: arq keeps its jobs
        by their ids, and would end with the first of two.
        """
        if not job_ids:
            return
        unreadable = [job_id for job_id in job_ids if not _is_text(job_id)]
        if unreadable:
            await self.pool.zrem(self.queue_name, *unreadable)
        # arq passes by what is due at 0, as if another worker had it, and ends at what is due at minus infinity.
        timeless = await self.pool.zremrangebyscore(self.queue_name, "-inf", 0)
        for _ in range(len(unreadable) + timeless):
            self.dropped("", "its id is no text, or it was never due")
        await super().start_jobs([each for each in job_ids if _is_text(each) and each.decode() not in self.tasks])

    async def run_job(self, job_id: str, score: int) -> None:
        """Run a job; one that cannot be run leaves Redis. Raises what an outage of Redis raises."""
        try:
            await super().run_job(job_id, score)
        except RedisError as error:
            if not _is_poisoned(error):
                raise
            await self._throw_out(job_id, error)
        except Exception as error:  # noqa: BLE001 -- told: arq's worker ends by whatever its own code raises here
            await self._throw_out(job_id, error)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Throw out what arq itself knows to be no job: unreadable, unknown, expired, tried too often."""
        await super().finish_failed_job(job_id, result_data)
        self.dropped(job_id, "arq cannot run it")

    async def _throw_out(self, job_id: str, error: Exception) -> None:
        if _is_about_aborts(error):  # all else was done: the job has ended, and what is in the way is no use to arq
            await self.pool.unlink(abort_jobs_ss)
            return
        async with self.pool.pipeline(transaction=True) as pipeline:
            pipeline.zrem(self.queue_name, job_id)
            pipeline.unlink(job_key_prefix + job_id, retry_key_prefix + job_id, in_progress_key_prefix + job_id)
            await pipeline.execute()
        self.dropped(job_id, f"it cannot be run ({type(error).__name__})")


def _is_poisoned(error: RedisError) -> bool:
    """Tell whether Redis says so of what lies in it; what else it refuses, it may do later."""
    return isinstance(error, ResponseError) and any(said in str(error) for said in _POISONED)


def _is_about_aborts(error: Exception) -> bool:
    return str(error).partition("(")[2].startswith(f"ZREM {abort_jobs_ss} ")


def _is_text(job_id: bytes) -> bool:
    try:
        job_id.decode()
    except UnicodeDecodeError:
        return False
    return True
