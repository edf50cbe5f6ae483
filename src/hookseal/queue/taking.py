"""Takes rings out of Redis, many in one round trip, and says there what became of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

import msgspec
from arq.connections import ArqRedis
from arq.constants import abort_jobs_ss, in_progress_key_prefix, job_key_prefix, retry_key_prefix
from redis.exceptions import ResponseError

from hookseal.ground.errors import Malformed
from hookseal.queue.bell import FUNCTION, MARGIN_MS

# How long a ring is held by whoever took it: for what a killed worker had taken another waits as long. Should the first
# live after all, two answer one ring, and only one of them claims.
HELD_SECONDS: Final = 10.0
LARGEST_JOB_BYTES: Final = 512  # the longest ids there are make a ring of less than 300
LOOKED_AT: Final = 1_000  # rings at the head that others hold, or that are thrown out, in one round

_TAKE: Final = files("hookseal.queue").joinpath("take.lua").read_text(encoding="utf-8")


class DropReason(StrEnum):
    """Why a ring claimed nothing, or was thrown out."""

    NOT_AN_ID = "not_an_id"
    HELD_TOO_LONG = "held_too_long"
    NO_JOB = "no_job"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    NOT_DUE = "not_due"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Dropped:
    """So many rings were thrown out for one reason.

    `job_id` is the id of one of them, empty if none can be shown; `detail` says more, if more is known.
    """

    reason: DropReason
    rings: int = 1
    job_id: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """The jobs by their ids, oldest ring first, and what was thrown out on the way."""

    jobs: dict[str, bytes]
    dropped: list[Dropped]


class RingAgain(Exception):
    """The ring could not be answered: it is to be taken again, no sooner than `seconds` from now.

    It keeps its place in the queue, or, if the reason lies in the delivery itself, goes behind what waits now: else
    those that cannot be answered would hold up those behind them. In both cases it stays before all that is rung later.
    """

    def __init__(self, seconds: float = 0.0, *, keeps_place: bool = True) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self.keeps_place = keeps_place


class _Job(msgspec.Struct):
    f: str
    a: list[Any]
    k: dict[str, Any]


_JOBS: Final = msgspec.msgpack.Decoder(_Job)


def arguments_of(job: bytes) -> tuple[Any, ...]:
    """Return the arguments of the job, of whatever type. Raises `Malformed` if it is no call of `deliver`."""
    try:
        read = _JOBS.decode(job)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("a job is a map in msgpack that names a function and its arguments") from None
    if read.f != FUNCTION or read.k:
        raise Malformed(f"a ring calls {FUNCTION}, with no named arguments")
    return tuple(read.a)


class Taking:
    """Takes the rings of one queue. All of it raises what the client of Redis raises in an outage."""

    def __init__(self, redis: ArqRedis, queue: str) -> None:
        self._redis = redis
        self._queue = queue
        self._take = redis.register_script(_TAKE)

    async def take(self, at_most: int) -> Taken:
        """Take what is due, oldest first, and hold it for `HELD_SECONDS`; throw out what can be no ring of ours.

        Due is what has a time in the past by the clock of Redis. What somebody holds is passed by.
        """
        arguments = (at_most, LOOKED_AT, int(HELD_SECONDS * 1000), LARGEST_JOB_BYTES)
        jobs, thrown_out = await self._take(keys=[self._queue], args=arguments)
        dropped = [
            Dropped(DropReason(reason.decode()), int(count), job_id.decode("ascii"))
            for reason, count, job_id in _in(thrown_out, 3)
        ]
        return Taken({job_id.decode("ascii"): job for job_id, job in _in(jobs, 2)}, dropped)

    async def end(self, job_id: str) -> None:
        """Leave nothing of the ring in Redis."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.zrem(self._queue, job_id)
            pipeline.unlink(job_key_prefix + job_id, retry_key_prefix + job_id, in_progress_key_prefix + job_id)
            pipeline.zrem(abort_jobs_ss, job_id)
            *ended, aborted = await pipeline.execute(raise_on_error=False)
        for answer in ended:
            if isinstance(answer, Exception):
                raise answer
        if isinstance(aborted, ResponseError):  # something else lies in the place of arq's aborts, which we do not use
            await self._redis.unlink(abort_jobs_ss)

    async def put_back(self, job_id: str, again: RingAgain) -> None:
        """Have the ring taken again after that time."""
        hold = in_progress_key_prefix + job_id
        if not again.keeps_place:
            seconds, microseconds = await self._redis.time()
            behind = int(seconds) * 1000 + int(microseconds) // 1000 - MARGIN_MS
            await self._redis.zadd(self._queue, {job_id: behind}, xx=True)
        if again.seconds:
            await self._redis.psetex(hold, int(again.seconds * 1000), "1")
        else:
            await self._redis.unlink(hold)


def _in(flat: list[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Yield so many at a time."""
    return zip(*[iter(flat)] * size, strict=True)
