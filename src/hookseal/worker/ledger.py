"""A ledger that tries again to write what became of an attempt, for as long as its lease may hold."""

from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from hookseal.dispatcher.model import Attempt, Claim, Ring, State, Verdict
from hookseal.dispatcher.policy import Wait
from hookseal.dispatcher.ports import Ledger
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable


class PersistentLedger:
    """A `Ledger` over another: claims fail at once, writes are tried again for `seconds`, fenced as ever."""

    def __init__(self, ledger: Ledger, *, seconds: float, clock: Clock) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._clock = clock

    async def claim(self, ring: Ring) -> Claim | None:
        """Take a due, pending delivery under a new lease."""
        return await self._ledger.claim(ring)

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> bool:
        """Write the attempt and do what the verdict says; False if the lease was lost."""
        return await self._again(lambda: self._ledger.record(claim, attempt, verdict, error))

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt."""
        return await self._again(lambda: self._ledger.release(claim, wait))

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt."""
        return await self._again(lambda: self._ledger.end(claim, state, error))

    async def _again(self, write: Callable[[], Awaitable[bool]]) -> bool:
        async def once() -> bool:  # tenacity awaits only what is declared async
            return await write()

        deadline = self._clock.monotonic() + self._seconds
        return await AsyncRetrying(
            sleep=self._clock.sleep,
            retry=retry_if_exception_type(Unavailable),
            stop=lambda _state: self._clock.monotonic() >= deadline,  # stop_after_delay has a clock of its own
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            reraise=True,
        )(once)
