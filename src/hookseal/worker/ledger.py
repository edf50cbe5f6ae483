"""A ledger that tries again to write what became of an attempt, for as long as its lease may hold."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from hookseal.dispatcher.model import Attempt, Claim, Ring, State, Verdict
from hookseal.dispatcher.policy import Wait
from hookseal.dispatcher.ports import Ledger
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Busy, Unavailable

_Written = TypeVar("_Written")


class PersistentLedger:
    """A `Ledger` over another: claims fail at once, writes are tried again for `seconds`, fenced as ever.

    `new_token` draws a UUID. `lost` is told the token of a claim whose answer did not come: it may have been made.
    """

    def __init__(
        self,
        ledger: Ledger,
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

    async def claim(self, ring: Ring, token: str | None = None) -> Claim | None:
        """Take a due, pending delivery under a new lease."""
        token = token or self._new_token()
        try:
            return await self._ledger.claim(ring, token)
        except Busy:  # which has taken nothing
            raise
        except (Unavailable, asyncio.CancelledError):
            self._lost(token)
            raise

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        """Write the attempt and do what the verdict says; return what was done, None if the lease was lost.

        A repeat that finds the lease gone may find its own first try, whose answer was lost; what that did is taken to
        be the verdict.
        """
        tries = count(1)

        async def write() -> Verdict | None:
            is_repeat = next(tries) > 1
            done = await self._ledger.record(claim, attempt, verdict, error)
            if done is None and is_repeat and await self._ledger.is_recorded(claim, attempt):
                return verdict
            return done

        return await self._again(write)

    async def is_recorded(self, claim: Claim, attempt: Attempt) -> bool:
        """Tell whether this very attempt of ours is on record."""
        return await self._ledger.is_recorded(claim, attempt)

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt."""
        return await self._again(lambda: self._ledger.release(claim, wait))

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt."""
        return await self._again(lambda: self._ledger.end(claim, state, error))

    async def _again(self, write: Callable[[], Awaitable[_Written]]) -> _Written:
        async def once() -> _Written:  # tenacity awaits only what is declared async
            return await write()

        deadline = self._clock.monotonic() + self._seconds
        return await AsyncRetrying(
            sleep=self._clock.sleep,
            retry=retry_if_exception_type(Unavailable),
            stop=lambda _state: self._clock.monotonic() >= deadline,  # stop_after_delay has a clock of its own
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            reraise=True,
        )(once)
