"""Attempts are counted by endpoint, result and duration, within a bound, until they are written."""

import pytest

from hookseal.dispatcher.core.endpoint_health import BOUNDS_MS, AttemptCounts, Key
from hookseal.dispatcher.core.model import Attempt, FinishedAttempt, Outcome, Ring, State, Verdict
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from tests.doubles.claims import claim
from tests.doubles.replaced import replace

pytestmark = pytest.mark.req("DEL-08")

DELIVERED = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=7, snippet=None, signed_by=())
FAILED = replace(DELIVERED, outcome=Outcome.TIMEOUT, status=None, duration_ms=20_001)


def made(attempt: Attempt, endpoint: str = "a") -> FinishedAttempt:
    """Return an attempt for that endpoint."""
    ring = Ring(tenant_id=TenantId("acme"), endpoint_id=EndpointId(endpoint), delivery_id=DeliveryId("d"))
    return FinishedAttempt(
        claim=replace(claim(), ring=ring), attempt=attempt, verdict=Verdict(state=State.FAILED), error=None
    )


def key(endpoint: str) -> Key:
    """Return the key of that endpoint."""
    return TenantId("acme"), EndpointId(endpoint)


def test_a_duration_is_counted_at_its_bound() -> None:
    """A duration is counted at the first bound that it does not exceed; counts that were taken start at zero again."""
    counts = AttemptCounts()
    for attempt in (DELIVERED, FAILED, replace(DELIVERED, duration_ms=8), replace(FAILED, duration_ms=None)):
        counts.add(made(attempt))
    counts.add(made(DELIVERED, "b"))
    taken = counts.take()

    assert {key("a"), key("b")} == taken.keys()
    assert 2 == taken[key("a")].delivered
    expected = {0: 1, BOUNDS_MS.index(7): 1, BOUNDS_MS.index(10): 1, len(BOUNDS_MS): 1}
    assert expected == {place: number for place, number in enumerate(taken[key("a")].durations) if number}
    assert {} == counts.take()


def test_returned_counts_are_added() -> None:
    """Counts that are put back are added to those counted meanwhile."""
    counts = AttemptCounts()
    counts.add(made(DELIVERED))
    taken = counts.take()
    counts.add(made(DELIVERED))
    counts.add(made(FAILED))
    counts.put_back(taken)

    again = counts.take()[key("a")]
    assert (2, 3, 2) == (again.delivered, sum(again.durations), again.durations[BOUNDS_MS.index(7)])


def test_the_number_of_endpoints_is_bounded() -> None:
    """Beyond the bound no further endpoint is counted; those that are counted go on."""
    counts = AttemptCounts(most=1)
    counts.add(made(DELIVERED))
    counts.add(made(DELIVERED, "b"))
    counts.add(made(DELIVERED))
    taken = counts.take()
    assert {key("a"): 2} == {each: found.delivered for each, found in taken.items()}
    counts.add(made(DELIVERED, "b"))
    counts.put_back(taken)
    assert {key("b")} == counts.take().keys()
