"""Results about pointers that a restored backup has left behind."""

from dataclasses import dataclass

from hookseal.admin.results.audit import ContradictedHead, StaleEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedEndpoint(StaleEndpoint):
    """An endpoint that cannot be accepted, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleEndpoints:
    """All endpoints that are stale: there is no next page."""

    items: tuple[StaleEndpoint, ...]
    next_cursor: None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRestore:
    """What was accepted: endpoints, and saved heads that the log contradicts. `refused` are the others.

    `epoch` is the new restore epoch, None if only one endpoint was accepted. `woken` deliveries waited for a secret: of
    each endpoint the oldest is tried, and the others follow once it is signed.
    """

    epoch: int | None
    woken: int
    accepted: tuple[StaleEndpoint, ...]
    refused: tuple[RefusedEndpoint, ...]
    contradicted: tuple[ContradictedHead, ...]
