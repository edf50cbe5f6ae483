"""Keeps the crowded lanes of a worker in PostgreSQL: parks rings, opens breakers, fetches the next deliveries."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from hookseal.dispatcher.core.model import WaitingFor
from hookseal.dispatcher.core.policy import SPREAD
from hookseal.dispatcher.core.ports import Parts
from hookseal.dispatcher.lanes.lane import Opened, Parked
from hookseal.dispatcher.lanes.round_robin import Key
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.dispatcher.store.lanes import BEGINNING, PAGE, PostgresLanes
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.inflight import InFlight
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.periodic import Passes, Periodic
from hookseal.worker.ring_handler import RingHandler

LOOK_SECONDS: Final = 1.0  # between two looks for crowded lanes of other workers
BUSY_LOOK_SECONDS: Final = 0.1  # between two passes while this worker looks after a crowded lane
COUNT_SECONDS: Final = 30.0  # between two looks whether there is a second tenant
FEW_AT_ONCE: Final = 32  # rings parked in one statement
MOST_AT_ONCE: Final = 128  # the same, while more than `MANY_TO_PARK` are to be parked
MANY_TO_PARK: Final = 1_000
MOST_FETCHES: Final = 80  # statements in one pass: each asks 128 lanes, and a worker looks after 10,000


class LaneKeeper:
    """The link between the lanes of this worker, which know no database, and PostgreSQL."""

    def __init__(
        self,
        store: PostgresLanes,
        lanes: Lanes,
        in_flight: InFlight,
        parts: Parts,
        *,
        meter: WorkerMeter,
        turns: BacklogTurns,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._in_flight = in_flight
        self._clock = parts.clock
        self._jitter = parts.jitter
        self._meter = meter
        self._turns = turns
        self._log = parts.log
        self.passes = Passes("lanes", parts.clock)
        self._woken = asyncio.Event()
        self._page_after: Key = BEGINNING
        self._look_at = self._count_at = parts.clock.monotonic()

    def wake(self) -> None:
        """Look at once: something is to be written, or a lane has room."""
        self._woken.set()

    def loop(self, handler: RingHandler) -> Periodic:
        """Return the loop that looks for this handler."""
        return Periodic(
            "lanes",
            partial(self.once, handler),
            every=lambda: BUSY_LOOK_SECONDS if self._lanes.crowded else LOOK_SECONDS,
            woken=self._woken,
            passes=self.passes,
            clock=self._clock,
            log=self._log,
        )

    async def once(self, handler: RingHandler) -> None:
        """Write what is to be written, look for crowded lanes, and fetch the next deliveries. Raises `Unavailable`."""
        if opened := self._lanes.take_opened():
            await self._open(opened)
        if self._lanes.to_park:
            async with self._turns.turn():
                at_once = MOST_AT_ONCE if len(self._lanes.to_park) > MANY_TO_PARK else FEW_AT_ONCE
                if parked := self._lanes.take_parked(at_once):  # a worker that stops has put them back meanwhile
                    await self._park(parked, handler)
                    self._turns.parked()
            if self._lanes.to_park:  # in the next pass, after what has room meanwhile
                self._woken.set()
        if self._clock.monotonic() >= self._look_at:
            await self._look()
        handler.wake()
        await self._fetch(handler)

    async def _park(self, parked: Sequence[Parked], handler: RingHandler) -> None:
        """Let the deliveries of these rings wait. If another transaction has locked one, its ring is tried again."""
        in_lanes = [each for each in parked if each.waiting_for is not WaitingFor.ORDER]
        for key in {(each.ring.tenant_id, each.ring.endpoint_id) for each in in_lanes}:
            self._lanes.crowded.parked(key)
        waiting = await self._store.park(parked)
        for each in parked:
            if (reason := waiting.get(each.ring.delivery_id)) is not None:
                self._meter.held(reason)
        if refused := [each.ring for each in in_lanes if each.ring.delivery_id not in waiting]:
            due = await self._store.due(refused)
            locked = {delivery for delivery, is_probe in due.items() if not is_probe}
            handler.keep_busy([each for each in refused if each.delivery_id in locked])
            gone = [each for each in refused if each.delivery_id not in locked]
            self._lanes.add_first(gone, self._clock.monotonic())

    async def _open(self, opened: Sequence[Opened]) -> None:
        """Open the breakers. If that fails, the next failure of the endpoint opens it."""
        new = await self._store.open_breakers(opened, spread=1 - SPREAD + 2 * SPREAD * self._jitter())
        for each in opened:
            if each.key not in new:  # another worker has opened it, or its probe failed
                continue
            self._meter.breaker_opened()
            self._log.warning(
                "endpoint.breaker_opened", tenant_id=each.key[0], endpoint_id=each.key[1], outcome=each.outcome.value
            )

    async def _look(self) -> None:
        """Learn the crowded lanes and their limits, one page at a time, and delete as many that have become calm."""
        now = self._clock.monotonic()
        self._look_at = now + LOOK_SECONDS
        self._lanes.share_again()
        self._lanes.park_old(now)
        if now >= self._count_at:
            self._count_at = now + COUNT_SECONDS
            self._lanes.tenants.has_one = await self._store.has_one_tenant()
        if (room := self._in_flight.room) and self._lanes.space(room):  # else no lane is asked
            await self._delete(self._lanes.crowded.calm(now)[:PAGE], now)
        page = await self._store.page(self._page_after)
        self._page_after = page[-1].key if len(page) == PAGE else BEGINNING
        for lane in page:
            if lane.is_open:
                self._lanes.crowded.learn(lane.key)
            else:
                self._lanes.crowded.forget(lane.key)
            if lane.pace is not None and lane.key in self._lanes.crowded:
                self._lanes.read_pace(lane.key, lane.pace, now)
            if lane.is_open and lane.reopened_at is not None:
                self._lanes.reopened(lane.key, lane.reopened_at, now)

    async def _delete(self, calm: Sequence[Key], now: float) -> None:
        """Delete these lanes. One that was stored is looked after further: a publisher may have read it before."""
        still_stored = await self._store.delete(calm) if calm else {}
        is_calm = set(self._lanes.crowded.calm(now))  # more of an ordered lane may be expected meanwhile
        for key in is_calm.intersection(calm):
            if key not in still_stored:
                self._lanes.crowded.forget(key)
            elif still_stored[key]:
                self._lanes.crowded.learn_again(key)
            else:
                self._lanes.crowded.keep(key)

    async def _fetch(self, handler: RingHandler) -> None:
        """Fetch the next deliveries of the lanes that have room, if slots are free, until every such lane was asked.

        Those of one statement begin while the next one runs.
        """
        for _ in range(MOST_FETCHES):
            room = 0 if handler.is_down else self._in_flight.room  # nothing can be claimed then
            asked = self._lanes.wanted(room, self._clock.monotonic()) if room else []
            if not asked:
                return
            self._lanes.found(asked, await self._store.next(asked), self._clock.monotonic())
            handler.wake()
