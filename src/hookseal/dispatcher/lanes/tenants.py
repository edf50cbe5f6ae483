"""How the slots of a worker are shared out among tenants. Pure."""

from typing import Final

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
