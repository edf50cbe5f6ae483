"""Claims deliveries for a worker: each claim has a token that the worker knows, even if its answer does not arrive."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from hookseal.dispatcher.core.model import Claimed, Ring
from hookseal.dispatcher.core.ports import ClaimStore
from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock
from hookseal.worker.periodic import Periodic

LOST_LOOK_SECONDS: Final = 1.0
_MOST: Final = 10_000  # beyond this the oldest are forgotten; their leases expire, and the sweep ends them


class KnownClaims:
    """The `Claims` of a worker over a store. A claim that fails is not repeated: its rings are claimed again later.

    `new_token` returns a new UUID. `lost` is called with the token of a claim whose answer did not arrive: the database
    may have made the claim.
    """

    def __init__(self, store: ClaimStore, *, new_token: Callable[[], str], lost: Callable[[str], object]) -> None:
        self._store = store
        self._new_token = new_token
        self._lost = lost

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies.

        If one cannot be read, the rings are halved until it is found; the others are claimed. Raises `Unavailable`.
        """
        token = token or self._new_token()
        try:
            return await self._store.claim_all(rings, token, most_bytes=most_bytes)
        except (Unavailable, asyncio.CancelledError):
            self._lost(token)
            raise
        except Exception as error:  # noqa: BLE001 -- the caller reports it
            if len(rings) == 1:  # if it has a lease now, the lease expires, so that it is not tried again before
                return Claimed(claims=[], busy=[], faulty=[(rings[0], error)])
        return await self._claim_by_halves(rings, token, most_bytes)

    async def _claim_by_halves(self, rings: Sequence[Ring], token: str, most_bytes: int) -> Claimed:
        """Claim them in two statements, after giving back what the database may have claimed under this token."""
        try:
            await self._store.give_back([token])
        except BaseException:
            self._lost(token)
            raise
        middle = len(rings) // 2
        first = await self.claim_all(rings[:middle], most_bytes=most_bytes)
        room = most_bytes - sum(len(each.body) for each in first.claims)
        try:
            second = await self.claim_all(rings[middle:], most_bytes=room)
        except Unavailable:  # the claims of the first half are sent
            second = Claimed(claims=[], busy=list(rings[middle:]))
        except BaseException:
            for each in {claim.lease_token for claim in first.claims}:
                self._lost(each)
            raise
        return Claimed(
            claims=first.claims + second.claims,
            busy=first.busy + second.busy,
            locked=first.locked + second.locked,
            behind=first.behind + second.behind,
            faulty=first.faulty + second.faulty,
        )


class LostClaims:
    """Gives the deliveries of such claims back unspent, for as long as the server may still make the claim.

    A server that was stopped may commit the claim as soon as it continues. So a token is looked for until PostgreSQL
    has answered for the length of a lease.
    """

    def __init__(self, store: ClaimStore, *, lease_seconds: float, clock: Clock, log: Any) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._log = log
        self.loop = Periodic("lost_claims", self.once, every=LOST_LOOK_SECONDS, clock=clock, log=log)
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, token: str) -> None:
        """From now on, look for deliveries that were claimed under this token."""
        if len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]
        self._until[token] = self._clock.monotonic() + self._lease_seconds

    async def once(self) -> None:
        """Look once, and give the deliveries that are found back. Raises `Unavailable`: then every token is kept."""
        if not self._until:
            return
        try:
            given_back = await self._store.give_back(list(self._until))
        except Exception:
            self._until = dict.fromkeys(self._until, self._clock.monotonic() + self._lease_seconds)
            raise
        for token in given_back:
            self._until.pop(token, None)
            self._log.warning("claim.given_back", reason="PostgreSQL answered too late")
        now = self._clock.monotonic()
        self._until = {token: until for token, until in self._until.items() if until > now}
