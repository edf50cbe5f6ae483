"""The metrics of endpoints that fail."""

from typing import Final

from hookseal.worker.metrics.metric import Aggregation, Kind, Metric

ENDPOINTS_FAILING: Final = Metric(
    name="hookseal_endpoints_failing",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Enabled endpoints that are failing. An endpoint is failing from the first failure that a worker sees a "
    "minute or more after another, with no success between them, until an attempt succeeds. Leader only.",
)
ENDPOINT_FAILING: Final = Metric(
    name="hookseal_endpoint_failing_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="For how long an endpoint is failing, for the ten enabled endpoints for which that is longest. The others are "
    "only counted, by `hookseal_endpoints_failing`. Leader only.",
    labels={"endpoint": ()},
)
