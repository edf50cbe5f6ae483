"""Takes rings out of the queue of arq, many in one round trip. What is taken is gone from Redis.

A ring that is lost after that is forgiven by the sweep: PostgreSQL knows what is due. For the same reason the times of
rings do not count here: the lowest are taken first, and whether their deliveries are due is for the claim to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import msgspec
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from redis.exceptions import InvalidResponse

from hookseal.dispatcher.model import Ring
from hookseal.ground import ids
from hookseal.ground.errors import Malformed
from hookseal.queue.bell import FUNCTION, Bell

MOST_JOB_BYTES: Final = 512  # the longest ids there are make a ring of less than 300
_ID_BYTES: Final = 36
_TOO_LARGE: Final = b"-"
# KEYS: the queue. ARGV: how many to take, the longest id, the largest job, the prefix of the jobs' keys, and ids that
# have left the queue already. Answers with id and job in turn: in the place of an id or a job that is too large there
# is a dash, so that nothing larger than a ring leaves Redis. A job that lies there as another kind of value is none.
_TAKE: Final = f"""
local found = {{}}
for i = 5, #ARGV do found[#found + 1] = ARGV[i] end
if tonumber(ARGV[1]) > 0 then
  local popped = redis.call('ZPOPMIN', KEYS[1], ARGV[1])
  for i = 1, #popped, 2 do found[#found + 1] = popped[i] end
end
local answer = {{}}
for _, id in ipairs(found) do
  local job = ''
  if #id > tonumber(ARGV[2]) then
    id = '{_TOO_LARGE.decode()}'
  else
    local key = ARGV[4] .. id
    if redis.call('TYPE', key).ok == 'string' then
      if redis.call('STRLEN', key) <= tonumber(ARGV[3]) then
        job = redis.call('GET', key)
      else
        job = '{_TOO_LARGE.decode()}'
      end
    end
    redis.call('UNLINK', key, '{in_progress_key_prefix}' .. id, '{retry_key_prefix}' .. id)
  end
  answer[#answer + 1] = id
  answer[#answer + 1] = job
end
return answer
"""


class DropReason(StrEnum):
    """Why a ring claimed nothing, or was thrown out."""

    NOT_AN_ID = "not_an_id"
    NO_JOB = "no_job"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    NOT_DUE = "not_due"


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
    """The rings, the earliest first, and what was thrown out on the way, by reason."""

    rings: list[Ring]
    dropped: list[Dropped]


class _Job(msgspec.Struct):
    """A job as arq writes it: function, arguments, named arguments. Its try and its time do not count."""

    f: str
    a: tuple[str, str, str]
    k: dict[str, Any]


_JOBS: Final = msgspec.msgpack.Decoder(_Job)


class _NoRingError(Exception):
    def __init__(self, reason: DropReason, *, job_id: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.dropped = Dropped(reason, job_id=job_id, detail=detail)


class Intake:
    """Takes from the queue of a bell. All of it raises what the client of Redis raises in an outage."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._script = bell.redis.register_script(_TAKE)

    async def take(self, most: int) -> Taken:
        """Take at most so many rings, the earliest first; throw out what is none."""
        return await self._taken(most, ())

    async def wait(self, most: int, seconds: float) -> Taken:
        """Do the same as soon as there is a ring; return nothing if none came within so many seconds."""
        try:
            popped = await self._bell.waiting.bzpopmin(self._bell.queue, timeout=seconds)
        except InvalidResponse:  # larger than any id of ours, and gone from the queue
            return Taken([], [Dropped(DropReason.NOT_AN_ID)])
        return Taken([], []) if popped is None else await self._taken(most - 1, (popped[1],))

    async def _taken(self, most: int, popped: Sequence[bytes]) -> Taken:
        arguments: list[bytes | str | int] = [most, _ID_BYTES, MOST_JOB_BYTES, job_key_prefix, *popped]
        found = await self._script(keys=[self._bell.queue], args=arguments)
        rings: list[Ring] = []
        dropped: dict[DropReason, Dropped] = {}
        for job_id, job in zip(found[::2], found[1::2], strict=True):
            try:
                rings.append(_ring(job_id, job))
            except _NoRingError as error:
                first = dropped.setdefault(error.dropped.reason, replace(error.dropped, rings=0))
                dropped[first.reason] = replace(first, rings=first.rings + 1)
        return Taken(rings, list(dropped.values()))


def _ring(job_id: bytes, job: bytes) -> Ring:
    """Return what a job says. Raises `_NoRingError` for all that no producer of rings writes."""
    try:
        delivery = ids.delivery_id(job_id.decode("ascii"))
    except (UnicodeDecodeError, Malformed):
        raise _NoRingError(DropReason.NOT_AN_ID) from None
    if not job:
        raise _NoRingError(DropReason.NO_JOB, job_id=delivery)
    if job == _TOO_LARGE:
        raise _NoRingError(DropReason.TOO_LARGE, job_id=delivery)
    try:
        tenant, endpoint = _ids_in(job, delivery)
        return Ring(tenant_id=ids.tenant_id(tenant), endpoint_id=ids.endpoint_id(endpoint), delivery_id=delivery)
    except Malformed as error:
        raise _NoRingError(DropReason.UNREADABLE, job_id=delivery, detail=str(error)) from None


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
