"""Claims whose answer did not arrive: the server may have made them, or may still do so, and no worker sends them."""

from typing import Any, Final

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.clock import Clock
from hookseal.worker.outage_log import Outage

LOOK_SECONDS: Final = 1.0
_MOST: Final = 10_000  # beyond this the oldest are forgotten; their leases expire, and the sweep ends them


class LostClaims:
    """Gives the deliveries of such claims back unspent, for as long as the server may still make the claim.

    A server that was stopped may commit the claim as soon as it continues. So a token is looked for until PostgreSQL
    has answered for the length of a lease.
    """

    def __init__(self, ledger: PostgresLedger, *, lease_seconds: float, clock: Clock, log: Any) -> None:
        self._ledger = ledger
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._log = log
        self._outage = Outage("lost_claims", log)
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, token: str) -> None:
        """From now on, look for deliveries that were claimed under this token."""
        if len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]
        self._until[token] = self._clock.monotonic() + self._lease_seconds

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            await self.once()
            await self._clock.sleep(LOOK_SECONDS)

    async def once(self) -> None:
        """Look once, and give the deliveries that are found back."""
        if not self._until:
            return
        with self._outage.survived():
            for token in await self._ledger.give_back(list(self._until)):
                self._until.pop(token, None)
                self._log.warning("claim.given_back", reason="PostgreSQL answered too late")
        now = self._clock.monotonic()
        if self._outage.lasts:
            self._until = dict.fromkeys(self._until, now + self._lease_seconds)
        self._until = {token: until for token, until in self._until.items() if until > now}
