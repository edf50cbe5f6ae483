"""What a simulation has shown: how long deliveries waited, and how many requests were in flight."""

from collections import defaultdict, deque

from hookseal.dispatcher.lanes.rotation import Key
from tools.fairness.rows import Delivery, Endpoint
from tools.fairness.simulation import Simulation


def waits(simulation: Simulation, tenants: set[str]) -> list[float]:
    """Return how long each delivery of these tenants waited for its first request, in order of the wait."""
    return sorted(
        each.begun_at - each.published_at
        for each in simulation.deliveries
        if each.key[0] in tenants and each.begun_at is not None
    )


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which this share lies."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def in_flight_over_time(simulation: Simulation, key: Key) -> "deque[tuple[float, int]]":
    """Return a record, filled while the simulation runs, of the requests in flight to an endpoint as each begins."""
    record: deque[tuple[float, int]] = deque()
    of = simulation.endpoints[key]

    def begun(_delivery: Delivery, endpoint: Endpoint) -> None:
        if endpoint is of:
            record.append((simulation.now, endpoint.in_flight))

    simulation.begun = begun
    return record


def most_by_minute(record: "deque[tuple[float, int]]", minutes: int) -> list[int]:
    """Return the most requests in flight in each minute."""
    most: dict[int, int] = defaultdict(int)
    for at, number in record:
        most[int(at // 60)] = max(most[int(at // 60)], number)
    return [most[minute] for minute in range(minutes)]
