"""What rings lead to: their deliveries are claimed together, and sent, each in a task of its own."""

import heapq
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final

from hookseal.dispatcher.deliver import claim, finish, prepare
from hookseal.dispatcher.model import Claim, Claimed, Ring
from hookseal.dispatcher.ports import Parts
from hookseal.dispatcher.prepare import Prepared
from hookseal.ground.errors import Exhausted, Unavailable
from hookseal.queue.intake import Dropped, DropReason
from hookseal.worker.inflight import InFlight
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.movement import Movement

BUSY_SECONDS: Final = 0.2  # how long a ring is kept whose delivery somebody else holds
# While this machine lacks descriptors nothing is begun for so long, twice as long each time that it still does.
_FIRST_REST_SECONDS: Final = 0.5
_LONGEST_REST_SECONDS: Final = 8.0
FAILED_SECONDS: Final = 1.0  # how long rings are kept that PostgreSQL did not answer about


class RingHandler:
    """Claims what rings name and starts sending it. What could not be claimed is kept here and tried again soon.

    `movement` knows when a delivery last came.
    """

    def __init__(self, parts: Parts, in_flight: InFlight, meter: WorkerMeter, movement: Movement) -> None:
        self._parts = parts
        self._in_flight = in_flight
        self._meter = meter
        self._kept: list[tuple[float, int, Ring]] = []
        self._order = count()
        self._failed_until = 0.0
        self._movement = movement
        self._rest_seconds = 0.0
        self._rested_at = float("-inf")

    @property
    def is_down(self) -> bool:
        """Whether PostgreSQL did not answer to the last claim, and is left alone for a while."""
        return self._parts.clock.monotonic() < self._failed_until

    def due(self, most: int) -> list[Ring]:
        """Take out at most so many kept rings whose time has come."""
        now = self._parts.clock.monotonic()
        found: list[Ring] = []
        while self._kept and len(found) < most and self._kept[0][0] <= now:
            found.append(heapq.heappop(self._kept)[2])
        return found

    def next_in(self) -> float | None:
        """Return the seconds until the next kept ring is due, None if none is kept."""
        return max(self._kept[0][0] - self._parts.clock.monotonic(), 0.0) if self._kept else None

    async def pause(self, seconds: float) -> None:
        """Return when the next kept ring is due, after so many seconds at most."""
        await self._parts.clock.sleep(min(seconds, self.next_in() or seconds))

    def keep(self, rings: Iterable[Ring], seconds: float = 0.0) -> None:
        """Keep these rings, and have them due after so many seconds."""
        due_at = self._parts.clock.monotonic() + seconds
        for each in rings:
            heapq.heappush(self._kept, (due_at, next(self._order), each))

    def leave(self) -> list[Ring]:
        """Take out every kept ring, for another worker."""
        left, self._kept = [each for _, _, each in self._kept], []
        return left

    def drop(self, dropped: Dropped) -> None:
        """Count and log what was thrown out of the queue."""
        self._meter.ring_dropped(dropped.reason, dropped.rings)
        self._parts.log.warning(
            "ring.dropped",
            reason=dropped.reason.value,
            rings=dropped.rings,
            delivery_id=dropped.job_id or None,
            detail=dropped.detail or None,
        )

    def full(self) -> None:
        """Note that what is due waits for room, not for the queue."""
        self._movement.moved()

    async def handle(self, rings: Sequence[Ring]) -> None:
        """Claim what these rings name, in slots that must be free, and start sending it."""
        self._in_flight.take(len(rings))
        claims: list[Claim] = []
        asked_at = 0.0
        try:
            claimed, asked_at = await claim(rings, self._parts, most_bytes=self._in_flight.bytes_room)
            claims = claimed.claims
            self._sort_out(rings, claimed)
        except Unavailable as error:
            self._movement.moved()  # the queue has done its part
            self._failed_until = self._parts.clock.monotonic() + FAILED_SECONDS
            self.keep(rings, FAILED_SECONDS)
            self._meter.claim_failed()
            self._parts.log.warning("claim.failed", deliveries=len(rings), reason=str(error))
        except Exception:
            self._movement.moved()
            self._meter.claim_failed()
            self._parts.log.exception("claim.defect", deliveries=len(rings))
        finally:
            self._in_flight.free(len(rings) - len(claims))
        for each in _by_endpoint(claims):
            for one in each:
                self._in_flight.hold(len(one.body))
            self._in_flight.start(self._group(each, asked_at), len(each[0].body))

    def _sort_out(self, rings: Sequence[Ring], claimed: Claimed) -> None:
        self._failed_until = 0.0
        self.keep(claimed.busy, BUSY_SECONDS)
        if claimed.claims or claimed.busy:
            self._movement.moved()
        if not_due := len(rings) - len(claimed.claims) - len(claimed.busy):
            self._meter.ring_dropped(DropReason.NOT_DUE, not_due)

    async def _group(self, claims: Sequence[Claim], asked_at: float) -> None:
        """Send all of these, the claims of one endpoint: the first in this task, the others each in one of its own."""
        try:
            first, *others = await prepare(claims, asked_at, self._parts)
        except BaseException:  # cut off: every claim is given back
            self._in_flight.free(len(claims) - 1, sum(len(each.body) for each in claims[1:]))
            raise
        for each in others:
            self._in_flight.start(self._finish(each), len(each.claim.body))
        await self._finish(first)

    async def _finish(self, prepared: Prepared) -> None:
        try:
            await finish(prepared, self._parts)
        except Exhausted as error:
            self._rest(str(error))
        except Unavailable as error:
            self._parts.log.error(  # noqa: TRY400 -- an outage, logged by its name: a traceback says no more
                "delivery.unrecorded", **_named(prepared.claim), reason=str(error)
            )
        except Exception:
            self._parts.log.exception("delivery.defect", **_named(prepared.claim))

    def _rest(self, reason: str) -> None:
        """Begin nothing for a while: what is in flight must end first, or somebody raise the limit."""
        if self._in_flight.is_resting:
            return
        now = self._parts.clock.monotonic()
        is_new = now - self._rested_at > 2 * _LONGEST_REST_SECONDS
        self._rest_seconds = _FIRST_REST_SECONDS if is_new else min(2 * self._rest_seconds, _LONGEST_REST_SECONDS)
        self._rested_at = now
        self._in_flight.rest(self._rest_seconds)
        self._parts.log.error("worker.exhausted", reason=reason, rests_seconds=self._rest_seconds)


def _by_endpoint(claims: Iterable[Claim]) -> list[list[Claim]]:
    found: dict[tuple[str, str], list[Claim]] = {}
    for each in claims:
        found.setdefault((each.ring.tenant_id, each.ring.endpoint_id), []).append(each)
    return list(found.values())


def _named(claim: Claim) -> dict[str, object]:
    return {"tenant_id": claim.ring.tenant_id, "delivery_id": claim.ring.delivery_id, "attempt": claim.number}
