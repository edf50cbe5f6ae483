"""Claims whose answer never came: the server may have taken them, or may yet do so, and nobody works them."""

from typing import Any, Final

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.clock import Clock
from hookseal.worker.outage import Outage

LOOK_SECONDS: Final = 1.0
_MOST: Final = 10_000  # the oldest leave first; their leases then run out, and the sweep acts


class LostClaims:
    """Gives back, unspent, what such a claim took, for as long as a late server may still take it.

    A server that was frozen commits what it was asked before as soon as it thaws. So a token is looked for
    until PostgreSQL has answered for as long as a lease lasts.
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
        """Look for what was claimed under this token from now on."""
        if len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]
        self._until[token] = self._clock.monotonic() + self._lease_seconds

    async def run(self) -> None:
        """Look every second while there is something to look for, for ever."""
        while True:
            await self.once()
            await self._clock.sleep(LOOK_SECONDS)

    async def once(self) -> None:
        """Give back what is found now."""
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
