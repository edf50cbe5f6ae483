"""Whose turn it is: tenants in turn, and the endpoints of each tenant in turn. Pure."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeAlias

Key: TypeAlias = tuple[str, str]  # tenant and endpoint


class RoundRobin:
    """A set of endpoints. Every operation takes the same time, however many there are."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: Key) -> bool:
        return key[1] in self._tenants.get(key[0], ())

    def __iter__(self) -> Iterator[Key]:
        return ((tenant, endpoint) for tenant, endpoints in self._tenants.items() for endpoint in endpoints)

    @property
    def tenants(self) -> int:
        """How many tenants there are."""
        return len(self._tenants)

    def add(self, key: Key) -> None:
        """Add an endpoint behind the others of its tenant, and a new tenant behind the others."""
        endpoints = self._tenants.get(key[0])
        if endpoints is None:
            endpoints = self._tenants[key[0]] = OrderedDict()
        self._size += key[1] not in endpoints
        endpoints[key[1]] = None

    def discard(self, key: Key) -> None:
        """Remove an endpoint, if it is there."""
        endpoints = self._tenants.get(key[0])
        if endpoints is not None and key[1] in endpoints:
            del endpoints[key[1]]
            self._size -= 1
            if not endpoints:
                del self._tenants[key[0]]

    def first(self) -> Key:
        """Return the endpoint whose turn it is."""
        tenant, endpoints = next(iter(self._tenants.items()))
        return tenant, next(iter(endpoints))

    def pass_turn(self, key: Key) -> None:
        """Move this endpoint behind the others of its tenant, and its tenant behind the others."""
        self._tenants[key[0]].move_to_end(key[1])
        self._tenants.move_to_end(key[0])

    def pass_tenant(self, tenant: str) -> None:
        """Move the tenant behind the others."""
        self._tenants.move_to_end(tenant)
