"""The metrics of lanes, their breakers, and the lines of ordered endpoints."""

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
    text="Endpoints whose lane is crowded: as many requests as they may have are or were in flight, or began in this "
    "second. Leader only.",
)
LINES_STOPPED: Final = Metric(
    name="hookseal_lines_stopped",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Ordered endpoints that send nothing until an operator replays or skips their dead letter or failed delivery. "
    "Leader only.",
)
