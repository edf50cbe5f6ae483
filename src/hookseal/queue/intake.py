"""Takes rings out of the arq queue: waits for them and takes many, in one round trip. A taken ring is not in Redis.

The sweep makes up for a ring that is lost after that, since PostgreSQL knows which deliveries are due. For the same
reason the times of rings only order them: the earliest is taken first, and the claim decides whether its delivery is
due.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import msgspec
from redis.exceptions import NoScriptError

from hookseal.dispatcher.core.model import Ring
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.queue.bell import Bell
from hookseal.queue.rings import FUNCTION

MAX_JOB_BYTES: Final = 512  # a ring with the longest ids has less than 300
_ID_BYTES: Final = 36
_TOO_LARGE: Final = b"-"
# The keys of arq 0.28.0: a job, its marks that it runs and has been tried, and the jobs that are to be aborted.
JOB_PREFIX: Final = "arq:job:"
IN_PROGRESS_PREFIX: Final = "arq:in-progress:"
RETRY_PREFIX: Final = "arq:retry:"
ABORTED: Final = "arq:abort"
# KEYS: the queue and its bell. ARGV: how many to take, the longest id, the largest job, the prefix of the jobs' keys.
# Returns id and job in turn. A dash replaces an id or a job that is too large, so that nothing larger than a ring is
# sent. A job that is not a string counts as missing. The bell is emptied, since its members, which any writer of Redis
# can add, have no meaning; if there may be more rings, it wakes the next worker.
_TAKE: Final = f"""
local ids = {{}}
if redis.call('TYPE', KEYS[2]).ok == 'zset' then redis.call('UNLINK', KEYS[2]) end
local popped = redis.call('ZPOPMIN', KEYS[1], ARGV[1])
for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
if #ids >= tonumber(ARGV[1]) then redis.pcall('ZADD', KEYS[2], 0, 'ring') end
local answer = {{}}
for _, id in ipairs(ids) do
  local job = ''
  if #id > tonumber(ARGV[2]) then
    id = '{_TOO_LARGE.decode()}'
  else
    local key = ARGV[4] .. id
    local size = redis.pcall('STRLEN', key)
    if type(size) == 'number' and size > tonumber(ARGV[3]) then
      job = '{_TOO_LARGE.decode()}'
    elseif type(size) == 'number' and size > 0 then
      job = redis.call('GET', key)
    end
    redis.call('UNLINK', key, '{IN_PROGRESS_PREFIX}' .. id, '{RETRY_PREFIX}' .. id)
  end
  answer[#answer + 1] = id
  answer[#answer + 1] = job
end
if #ids > 0 then redis.pcall('ZREM', '{ABORTED}', unpack(ids)) end
return answer
"""


class DropReason(StrEnum):
    """Why a ring was dropped, or led to no claim."""

    NOT_AN_ID = "not_an_id"
    NO_JOB = "no_job"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    NOT_DUE = "not_due"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A number of rings that were dropped for one reason.

    `job_id` is the id of one of them, empty if none can be shown; `detail` explains the reason further, or is empty.
    """

    reason: DropReason
    rings: int = 1
    job_id: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """The rings that were taken, the earliest first, and the dropped ones by reason."""

    rings: list[Ring]
    dropped: list[Dropped]


class _Job(msgspec.Struct):
    """A job as arq writes it: function, arguments, named arguments. Its try number and its time are not used."""

    f: str
    a: tuple[str, str, str]
    k: dict[str, Any]


_JOBS: Final = msgspec.msgpack.Decoder(_Job)


class _InvalidJobError(Exception):
    def __init__(self, reason: DropReason, *, job_id: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.dropped = Dropped(reason, job_id=job_id, detail=detail)


class Intake:
    """Takes rings from the queue of a bell."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._script = bell.redis.register_script(_TAKE)

    async def take(self, most: int, seconds: float) -> Taken:
        """Take at most `most` rings, the earliest first, once the bell rings, or after `seconds`. Drop invalid ones.

        `seconds` is more than 0. A ring that was queued without the bell is taken with the next ones, or after
        `seconds`. Raises the errors of the Redis client: what Redis had already taken is then lost, until the sweep.
        """
        keys = [self._bell.queue, self._bell.bell_key]
        arguments = [str(most), str(_ID_BYTES), str(MAX_JOB_BYTES), JOB_PREFIX]
        woken, answer = await self._bell.waiting.send(
            ["BZPOPMIN", self._bell.bell_key, seconds],
            ["EVALSHA", self._script.sha, len(keys), *keys, *arguments],  # Redis runs it when the pop has ended
            is_answer=_is_taken,
        )
        if isinstance(answer, NoScriptError):
            [answer] = await self._bell.waiting.send(
                ["EVAL", self._script.script, len(keys), *keys, *arguments], is_answer=_is_taken
            )
        if isinstance(answer, Exception):
            raise answer
        taken = _taken(answer)
        if isinstance(woken, Exception) and not answer:  # the bell is of another type: rings are taken without it
            raise woken
        return taken


def _is_taken(answer: object) -> bool:
    return isinstance(answer, list) and len(answer) % 2 == 0


def _taken(answer: Sequence[bytes]) -> Taken:
    rings: list[Ring] = []
    dropped: dict[DropReason, Dropped] = {}
    for job_id, job in zip(answer[::2], answer[1::2], strict=True):
        try:
            rings.append(_ring(job_id, job))
        except _InvalidJobError as error:
            first = dropped.setdefault(error.dropped.reason, replace(error.dropped, rings=0))
            dropped[first.reason] = replace(first, rings=first.rings + 1)
    return Taken(rings, list(dropped.values()))


def _ring(job_id: bytes, job: bytes) -> Ring:
    """Return the ring in a job. Raises `_InvalidJobError` for a job that no producer of rings writes."""
    try:
        delivery = ids.delivery_id(job_id.decode("ascii"))
    except (UnicodeDecodeError, Malformed):
        raise _InvalidJobError(DropReason.NOT_AN_ID) from None
    if not job:
        raise _InvalidJobError(DropReason.NO_JOB, job_id=delivery)
    if job == _TOO_LARGE:
        raise _InvalidJobError(DropReason.TOO_LARGE, job_id=delivery)
    try:
        tenant, endpoint = _ids_in(job, delivery)
        return Ring(tenant_id=ids.owner_id(tenant), endpoint_id=ids.endpoint_id(endpoint), delivery_id=delivery)
    except Malformed as error:
        raise _InvalidJobError(DropReason.UNREADABLE, job_id=delivery, detail=str(error)) from None


def _ids_in(job: bytes, delivery: str) -> tuple[str, str]:
    try:
        read = _JOBS.decode(job)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Malformed(f"a job is a map in msgpack that calls {FUNCTION} with three ids") from None
    if read.f != FUNCTION or read.k:
        raise Malformed(f"a ring calls {FUNCTION}, with no named arguments")
    tenant, endpoint, named = read.a
    if named != delivery:
        raise Malformed("a ring is queued under the id of its delivery")
    return tenant, endpoint
