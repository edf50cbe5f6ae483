"""The rings that wait in one worker, by lane, and the requests that it has begun. Pure.

The rings of a lane that may begin nothing now are blocked.
"""

from collections import Counter, deque
from typing import Final

from hookseal.dispatcher.core.model import Outcome, Ring
from hookseal.dispatcher.lanes.lane import NEUTRAL, TROUBLE
from hookseal.dispatcher.lanes.round_robin import Key
from hookseal.dispatcher.lanes.tenants import Tenants, Unanswered

HANGS_SECONDS: Final = 1.0  # a request in trouble that took as long has hung, however it ended
MOST_BLOCKED: Final = 512  # rings; further ones wait in PostgreSQL


class WaitingRings:
    """The rings of each lane, in the order of their turns, each with the time since when it waits here.

    `by_lane` has no empty lanes. `blocked` is the number of rings that are blocked; `tenants` counts the others.
    """

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self.by_lane: dict[Key, deque[tuple[float, Ring]]] = {}
        self._ids: set[str] = set()
        self._blocked: dict[Key, int] = {}
        self._blocked_of = Counter[str]()
        self.blocked = 0

    def __contains__(self, delivery_id: str) -> bool:
        return delivery_id in self._ids

    @property
    def ready(self) -> int:
        """How many rings are not blocked."""
        return len(self._ids) - self.blocked

    def places(self, tenant: str) -> int:
        """Return how many more rings of this tenant may be blocked.

        With several tenants, it may hold at most as many places as stay free.
        """
        free = MOST_BLOCKED - self.blocked
        return free if self._tenants.has_one else max((free - self._blocked_of[tenant]) // 2, 0)

    def add(self, ring: Ring, now: float, *, first: bool = False) -> None:
        """Add a ring behind the others of its lane, or before them. If the lane is blocked, unblock it after that."""
        rings = self.by_lane.setdefault((ring.tenant_id, ring.endpoint_id), deque())
        (rings.appendleft if first else rings.append)((now, ring))
        self._ids.add(ring.delivery_id)
        self._tenants.count(ring.tenant_id, 1)

    def take(self, key: Key, *, last: bool = False) -> Ring:
        """Remove and return the first ring of a lane, or the last one. The lane must not be blocked."""
        rings = self.by_lane[key]
        ring = (rings.pop if last else rings.popleft)()[1]
        self._ids.discard(ring.delivery_id)
        self._removed(key, 1)
        return ring

    def take_old(self, key: Key, since: float) -> list[Ring]:
        """Remove and return the rings of a lane that have waited here since then. The lane must not be blocked."""
        rings, old = self.by_lane[key], list[Ring]()
        for _ in range(len(rings)):  # not only the first: a ring that was tried in vain is before older ones
            at, ring = rings.popleft()
            if at <= since:
                old.append(ring)
            else:
                rings.append((at, ring))
        self._ids.difference_update(each.delivery_id for each in old)
        self._removed(key, len(old))
        return old

    def _removed(self, key: Key, number: int) -> None:
        self._tenants.count(key[0], -number)
        if not self.by_lane[key]:
            del self.by_lane[key]

    def block(self, key: Key) -> None:
        """Count the rings of this lane as blocked."""
        self._blocked[key] = number = len(self.by_lane[key])
        self.blocked += number
        self._blocked_of[key[0]] += number
        self._tenants.count(key[0], -number)

    def unblock(self, key: Key) -> None:
        """Count the rings of this lane as blocked no longer."""
        if number := self._blocked.pop(key, 0):
            self.blocked -= number
            self._blocked_of[key[0]] -= number
            if not self._blocked_of[key[0]]:
                del self._blocked_of[key[0]]
            self._tenants.count(key[0], number)

    def leave(self) -> list[Ring]:
        """Remove all rings, and return those that are not parked."""
        left = [ring for rings in self.by_lane.values() for _, ring in rings if not ring.is_parked]
        self.by_lane.clear()
        self._ids.clear()
        self._blocked.clear()
        self._blocked_of.clear()
        self.blocked = 0
        self._tenants.leave()
        return left


class Begun:
    """For each delivery its endpoint, and when its request began. `tenants` and `unanswered` count them as well.

    `waited` are those for which their lanes had no room before.
    """

    def __init__(self, tenants: Tenants, unanswered: Unanswered) -> None:
        self._requests: dict[str, tuple[Key, float]] = {}
        self.waited = set[str]()
        self._tenants = tenants
        self._unanswered = unanswered

    def __contains__(self, delivery_id: str) -> bool:
        return delivery_id in self._requests

    def begin(self, delivery_id: str, key: Key, now: float, *, answers: bool, waited: bool = False) -> None:
        """Count a request to an endpoint that answered last, or did not. `waited`: its lane had no room before."""
        self._requests[delivery_id] = (key, now)
        if waited:
            self.waited.add(delivery_id)
        self._tenants.begin(key[0])
        if not answers:
            self._unanswered.begin(delivery_id, key[0])

    def end(self, delivery_id: str, outcome: Outcome | None = None, now: float = 0.0) -> tuple[Key, float] | None:
        """Count it no longer, after this outcome; return its endpoint and when it began, None if it was not counted."""
        request = self._requests.pop(delivery_id, None)
        if request is not None:
            self.waited.discard(delivery_id)
            self._tenants.end(request[0][0])
            hung = outcome in TROUBLE and now - request[1] >= HANGS_SECONDS
            is_known = outcome is not None and outcome not in TROUBLE | NEUTRAL
            self._unanswered.end(delivery_id, answers=is_known if is_known or hung else None)
        return request
