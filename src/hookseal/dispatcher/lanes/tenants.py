"""What one tenant may not take from others: slots of a worker, and its pace with endpoints that hang. Pure.

A request to an endpoint that has not answered yet, or did not answer last, opens a connection, and may last until its
time-out. Many at the same moment would hold up all others: once when they begin, and again when they time out together.
"""

from collections import OrderedDict
from typing import Final

from hookseal.dispatcher.lanes.round_robin import Key, RoundRobin

TENANT_SHARE: Final = 8  # one tenant gets at most 8 of 9 slots, two get 8 of 17 each


class Tenants:
    """The slots that each tenant has, and the rings that wait for it, without those of lanes that have no room.

    `has_one` says that the installation has no endpoints of a second tenant: then no slots are left free.
    """

    def __init__(self) -> None:
        self.has_one = False
        self._slots: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._full: set[str] = set()

    @property
    def waiting_of_full(self) -> int:
        """How many rings wait for tenants that have their share."""
        return sum(self._waiting.get(tenant, 0) for tenant in self._full)

    def has_its_share(self, tenant: str, slots: int) -> bool:
        """Return whether the tenant has as many slots as it may, with so many free."""
        return not self.has_one and self._slots.get(tenant, 0) >= TENANT_SHARE * slots

    def fill(self, tenant: str) -> None:
        """Remember that the tenant has its share, until one of its requests ends."""
        self._full.add(tenant)

    def is_full(self, tenant: str) -> bool:
        """Return whether the tenant had its share at the last look."""
        return tenant in self._full

    def begin(self, tenant: str) -> None:
        """Count a slot."""
        self._slots[tenant] = self._slots.get(tenant, 0) + 1

    def end(self, tenant: str) -> None:
        """Count a slot less."""
        self._full.discard(tenant)
        left = self._slots[tenant] - 1
        if left:
            self._slots[tenant] = left
        else:
            del self._slots[tenant]

    def waiting(self, tenant: str) -> int:
        """Return how many rings wait for the tenant."""
        return self._waiting.get(tenant, 0)

    def count(self, tenant: str, rings: int) -> None:
        """Count so many waiting rings more, or less."""
        left = self._waiting.get(tenant, 0) + rings
        if left:
            self._waiting[tenant] = left
        else:
            self._waiting.pop(tenant, None)

    def leave(self) -> None:
        """Count no waiting rings any more."""
        self._waiting.clear()


MOST_UNANSWERED: Final = 8  # such requests in one turn
MANY_UNANSWERED: Final = 32  # such requests in flight; with so many, a pause follows each turn that begins one
MOST_AFTER_PAUSE: Final = 3  # waiting endpoints that may begin after a pause
PAUSE_SECONDS: Final = 0.02  # in it, tenants that have as many in flight as they may begin none; others may
MOST_ALLOWED: Final = 512  # such requests of one tenant in flight that begin without pauses, as far as others answered
MOST_TENANTS: Final = 1_000  # whose endpoints answered: for so many it is kept how many may begin without pauses
ENOUGH_WAITING: Final = 64  # endpoints that wait for the end of a pause; with so many, nothing is fetched for others


class Unanswered:
    """The requests in flight to such endpoints, and the endpoints that wait for the end of a pause.

    `_allowed` is how many of a tenant may be in flight without pauses: `MOST_UNANSWERED` at first, one more for each
    that is answered, and half as many after each that hung. So a worker that has just started soon sends at its full
    rate to many endpoints that answer, and slowly to many that hang.
    """

    def __init__(self) -> None:
        self._in_flight: dict[str, str] = {}
        self._of_tenant: dict[str, int] = {}
        self._allowed: OrderedDict[str, int] = OrderedDict()
        self._waiting = RoundRobin()
        self._paused_until = float("-inf")

    def begin(self, delivery_id: str, tenant: str) -> None:
        """Count a request."""
        self._in_flight[delivery_id] = tenant
        self._of_tenant[tenant] = self._of_tenant.get(tenant, 0) + 1

    def end(self, delivery_id: str, *, answers: bool | None = None) -> None:
        """Count the end of a request that was answered or that hung, or neither, if it was counted."""
        tenant = self._in_flight.pop(delivery_id, None)
        if tenant is None:
            return
        if answers is not None:
            self._allow(tenant, self._may(tenant) + 1 if answers else self._may(tenant) // 2)
        if left := self._of_tenant[tenant] - 1:
            self._of_tenant[tenant] = left
        else:
            del self._of_tenant[tenant]

    def pause(self, now: float, *, after: int) -> None:
        """Begin a pause after a turn that began so many, if many are in flight, unless there is a pause."""
        if after and len(self._in_flight) >= MANY_UNANSWERED and now >= self._paused_until:
            self._paused_until = now + PAUSE_SECONDS

    def is_paused(self, tenant: str, now: float) -> bool:
        """Return whether this tenant may not begin one now."""
        return now < self._paused_until and self._has_many(tenant)

    def ends_pause_at(self, now: float, *, others_wait: bool) -> float:
        """Return when the pause ends, infinity if nothing waits for that: no endpoint here, and no others."""
        return self._paused_until if self._waiting or (others_wait and now < self._paused_until) else float("inf")

    def must_wait(self, key: Key, now: float, *, unless: bool) -> bool:
        """Return whether this endpoint waits from now on: for the end of a pause, or behind others. Not if `unless`."""
        if unless or not self._has_many(key[0]) or not (self._waiting or now < self._paused_until):
            self._waiting.discard(key)
            return False
        self._waiting.add(key)
        return True

    def forget(self, key: Key) -> None:
        """Let this endpoint wait no longer: it has nothing to begin."""
        self._waiting.discard(key)

    def has_enough(self, tenant: str, now: float, places: int) -> bool:
        """Return whether nothing is to be fetched for such an endpoint of this tenant.

        Either enough others wait, or it would have to wait, too, and has no place for that.
        """
        must_wait = bool(self._waiting) or now < self._paused_until
        return (len(self._waiting) >= ENOUGH_WAITING or (must_wait and not places)) and self._has_many(tenant)

    def take_next(self, now: float) -> list[Key]:
        """Remove and return the endpoints whose turn it is. Tenants take turns.

        A tenant with as many in flight as it may gets none during a pause, and few after it.
        """
        taken, after_pause, passed = list[Key](), 0, set[str]()
        while self._waiting and len(taken) < MOST_UNANSWERED and len(passed) < self._waiting.tenants:
            key = self._waiting.first()
            has_many = self._has_many(key[0])
            if has_many and (now < self._paused_until or after_pause == MOST_AFTER_PAUSE):
                self._waiting.pass_tenant(key[0])
                passed.add(key[0])
                continue
            after_pause += has_many
            taken.append(key)
            self._waiting.pass_turn(key)
            self._waiting.discard(key)
        return taken

    def leave(self) -> None:
        """Let no endpoint wait any more."""
        self._waiting = RoundRobin()

    def _has_many(self, tenant: str) -> bool:
        return self._of_tenant.get(tenant, 0) >= self._may(tenant)

    def _may(self, tenant: str) -> int:
        return self._allowed.get(tenant, MOST_UNANSWERED)

    def _allow(self, tenant: str, number: int) -> None:
        self._allowed.pop(tenant, None)
        if number > MOST_UNANSWERED:
            self._allowed[tenant] = min(number, MOST_ALLOWED)
            if len(self._allowed) > MOST_TENANTS:
                self._allowed.popitem(last=False)
