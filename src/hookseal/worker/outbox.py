"""The outbox: one elected worker rings what nobody has rung for the time at which it is due."""

import asyncio
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.clock import Clock
from hookseal.ground.sql import statements
from hookseal.queue.bell import Bell
from hookseal.schema.database import ANSWER_SECONDS, Pool, connected
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.metrics import RungBy
from hookseal.worker.outage import Outage
from hookseal.worker.pause import at_most, set_within

LEASE_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.1
WAITED_SECONDS: Final = 0.1  # whoever publishes rings by themselves: they are left this long to do it
_TRY_SECONDS: Final = 1.0  # how often who does not lead asks, and how often it is tried again after a failure
_GOODBYE_SECONDS: Final = 1.0  # a stop waits no longer for a PostgreSQL that does not answer
_RENEWALS: Final = 3  # within the length of one lease

_SQL: Final = statements("hookseal.worker", "outbox.sql")


class Lease:
    """The right to lead, in PostgreSQL. Who is frozen or cut off loses it by the database's clock."""

    def __init__(self, pool: Pool, *, holder: str, seconds: float = LEASE_SECONDS) -> None:
        self._pool = pool
        self._holder = holder
        self.seconds = seconds

    async def take(self) -> str | None:
        """Take the lease or make ours longer; return its token, None while another holds it. Raises `Unavailable`."""
        with translated():
            async with connected(self._pool) as connection:
                token: str | None = await connection.fetchval(
                    _SQL["lead"], self._holder, self.seconds, timeout=ANSWER_SECONDS
                )
        return token

    async def give_back(self) -> None:
        """Let another take it at once, if it is ours. Raises `Unavailable`."""
        with translated():
            async with connected(self._pool) as connection:
                await connection.execute(_SQL["step_down"], self._holder, timeout=ANSWER_SECONDS)


class Outbox:
    """Leads if it can, and rings while it leads. Every worker has one."""

    def __init__(
        self,
        lease: Lease,
        ledger: PostgresLedger,
        bell: Bell,
        *,
        clock: Clock,
        meter: WorkerMeter,
        log: Any,
    ) -> None:
        self._lease = lease
        self._ledger = ledger
        self._bell = bell
        self._clock = clock
        self._meter = meter
        self._log = log
        self._outage = Outage("outbox", log)
        self._token: str | None = None
        self._ask_at = self._lead_until = clock.monotonic()
        self._woken = asyncio.Event()

    @property
    def leads(self) -> bool:
        """Whether this worker leads now: by its own clock, which runs no slower than the lease."""
        return self._token is not None and self._clock.monotonic() < self._lead_until

    def wake(self) -> None:
        """Look now, at whatever is unrung, if this worker leads."""
        if self.leads:
            self._woken.set()

    async def run(self, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Lead if we can, and ring every `poll_seconds` while we do, for ever. What fails is told once an outage."""
        waited_seconds = WAITED_SECONDS
        while True:
            more = False
            with self._outage.survived():
                more = await self.once(waited_seconds=waited_seconds)
            if not more:
                woken = await set_within(self._woken, self._pause(poll_seconds), self._clock)
                self._woken.clear()
                waited_seconds = 0.0 if woken else WAITED_SECONDS

    async def once(self, *, waited_seconds: float = WAITED_SECONDS) -> bool:
        """Renew or try to lead when it is time to, and ring a batch if we lead; return whether more may be left.

        Raises `Unavailable`.
        """
        if self._clock.monotonic() >= self._ask_at:
            await self._ask()
        if self._token is None:
            return False
        if self._outage.lasts:
            await self._require_bell()
        return await self._ring(self._token, waited_seconds)

    async def step_down(self) -> None:
        """Lead no more, and let another do it at once. If PostgreSQL does not answer, the lease runs out."""
        self._token = None
        with self._outage.survived(), translated():
            await at_most(_GOODBYE_SECONDS, self._lease.give_back())

    async def _ask(self) -> None:
        asked_at = self._clock.monotonic()
        led = self._token is not None
        token = await self._lease.take()
        self._token = token
        if token is not None:
            self._lead_until = asked_at + self._lease.seconds
        self._ask_at = asked_at + (_TRY_SECONDS if token is None else self._lease.seconds / _RENEWALS)
        if led != (token is not None):
            self._log.info("outbox.leads" if token is not None else "outbox.follows")

    async def _require_bell(self) -> None:
        """Return once Redis answers again: what is taken to be rung counts as rung, so nothing is taken before."""
        await self._bell.ping()

    async def _ring(self, token: str, waited_seconds: float) -> bool:
        rings, more = await self._ledger.ring_unrung(token, waited_seconds=waited_seconds)
        if rings:
            await self._bell.ring(rings)
            self._meter.rang(RungBy.OUTBOX, len(rings))
        return more

    def _pause(self, poll_seconds: float) -> float:
        if self._outage.lasts:
            return _TRY_SECONDS
        if self._token is not None:
            return poll_seconds
        return max(self._ask_at - self._clock.monotonic(), 0.0)
