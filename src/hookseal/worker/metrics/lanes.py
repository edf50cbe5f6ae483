"""The metrics of lanes and their breakers."""

from typing import Final

from hookseal.worker.metrics.metric import Aggregation, Kind, Metric

BREAKERS_OPENED: Final = Metric(
    name="hookseal_breakers_opened_total",
    kind=Kind.COUNTER,
    text="Breakers that this worker opened: an endpoint failed ten times in a row, and waits for a probe.",
)
BREAKERS_OPEN: Final = Metric(
    name="hookseal_breakers_open",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Endpoints whose breaker is open. Leader only.",
)
LANES_CROWDED: Final = Metric(
    name="hookseal_lanes_crowded",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Endpoints with deliveries that wait because as many requests as they may have are in flight, or were sent in "
    "this second. Leader only.",
)
