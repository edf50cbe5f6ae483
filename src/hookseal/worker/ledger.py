"""A ledger that writes outcomes in batches, and tries again for as long as their leases may hold."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import TypeVar

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from hookseal.dispatcher.model import Attempt, Claim, Claimed, Made, Recorded, Ring, State, Verdict
from hookseal.dispatcher.policy import Wait
from hookseal.dispatcher.ports import BatchedLedger
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable
from hookseal.worker.outcomes import Outcome, Outcomes

T = TypeVar("T")


class PersistentLedger:
    """A `Ledger` over another: claims fail at once, writes are tried again for `seconds`, fenced as ever.

    `new_token` draws a UUID. `lost` is given the token of a claim whose answer did not come: it may have been made.
    """

    def __init__(
        self,
        ledger: BatchedLedger,
        *,
        seconds: float,
        clock: Clock,
        new_token: Callable[[], str],
        lost: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._clock = clock
        self._new_token = new_token
        self._lost = lost
        self._outcomes = Outcomes(self._record_all)
        self._alone: set[asyncio.Task[None]] = set()

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies."""
        token = token or self._new_token()
        try:
            return await self._ledger.claim_all(rings, token, most_bytes=most_bytes)
        except (Unavailable, asyncio.CancelledError):
            self._lost(token)
            raise

    def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Awaitable[Verdict | None]:
        """Write the attempt and do what the verdict says, with others in one statement; return what was done.

        None if the lease was lost. It is in the batch when this returns, and written whether or not it is awaited.
        """
        return self._outcomes.add(Made(claim=claim, attempt=attempt, verdict=verdict, error=error))

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt."""
        return await self._again(lambda _: self._ledger.release(claim, wait))

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt."""
        return await self._again(lambda _: self._ledger.end(claim, state, error))

    async def _record_all(self, outcomes: list[Outcome]) -> None:
        """Record them in one statement, except for those that change their endpoint, whose row may be held for long."""
        together = [each for each in outcomes if not _changes_its_endpoint(each[0])]
        for each in outcomes:
            if _changes_its_endpoint(each[0]):
                self._record_alone(each)
        if together:
            await self._record_together(together)

    async def _record_together(self, outcomes: list[Outcome]) -> None:
        """Settle each of them. One that PostgreSQL refuses is found by halves, and keeps no other from its record."""
        made = [each for each, _ in outcomes]
        try:
            kept = await self._again(lambda is_repeat: self._kept(made, is_repeat=is_repeat))
        except asyncpg.PostgresError as error:
            if len(outcomes) == 1:
                _settle(outcomes[0][1], error)
                return
            middle = len(outcomes) // 2
            await self._record_together(outcomes[:middle])
            await self._record_together(outcomes[middle:])
        except Exception as error:  # noqa: BLE001 -- whoever waits for the outcome reports it
            for _, future in outcomes:
                _settle(future, error)
        else:
            for each, what in zip(outcomes, kept, strict=True):
                if what is Recorded.BUSY:
                    self._record_alone(each)
                else:
                    _settle(each[1], each[0].verdict if what is Recorded.KEPT else None)

    async def _kept(self, made: Sequence[Made], *, is_repeat: bool) -> list[Recorded]:
        """Record them; a repeat that finds leases gone may find its own first try, whose answer was lost."""
        found = await self._ledger.record_all(made)
        if not is_repeat or Recorded.LEASE_LOST not in found:
            return found
        lost = [each for each, what in zip(made, found, strict=True) if what is Recorded.LEASE_LOST]
        recorded = await self._ledger.recorded(lost)
        return [
            Recorded.KEPT if each.claim.ring.delivery_id in recorded else what
            for each, what in zip(made, found, strict=True)
        ]

    def _record_alone(self, outcome: Outcome) -> None:
        task = asyncio.ensure_future(self._recorded_alone(*outcome))
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    async def _recorded_alone(self, made: Made, future: "asyncio.Future[Verdict | None]") -> None:
        async def write(is_repeat: bool) -> Verdict | None:  # noqa: FBT001 -- what `_again` tells
            done = await self._ledger.record(made.claim, made.attempt, made.verdict, made.error)
            if done is None and is_repeat and await self._ledger.recorded([made]):
                return made.verdict  # what the first try did, whose answer was lost, is taken to be that
            return done

        try:
            _settle(future, await self._again(write))
        except Exception as error:  # noqa: BLE001 -- whoever waits for the outcome reports it
            _settle(future, error)

    async def _again(self, write: Callable[[bool], Awaitable[T]]) -> T:
        """Return what `write` returns, tried again while PostgreSQL is away; it is told whether this is a repeat."""
        tries = count(1)

        async def once() -> T:  # tenacity awaits only what is declared async
            return await write(next(tries) > 1)

        deadline = self._clock.monotonic() + self._seconds
        return await AsyncRetrying(
            sleep=self._clock.sleep,
            retry=retry_if_exception_type(Unavailable),
            stop=lambda _state: self._clock.monotonic() >= deadline,  # stop_after_delay has a clock of its own
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            reraise=True,
        )(once)


def _changes_its_endpoint(made: Made) -> bool:
    """Return whether it disables its endpoint, or is the probe that shows that its secret is back."""
    return made.verdict.disable is not None or made.claim.is_probe is True


def _settle(future: "asyncio.Future[Verdict | None]", what: Verdict | Exception | None) -> None:
    if future.done():  # who waited was cut off
        return
    if isinstance(what, Exception):
        future.set_exception(what)
    else:
        future.set_result(what)
