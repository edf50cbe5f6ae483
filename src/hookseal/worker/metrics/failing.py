"""The metrics of endpoints that fail."""

from typing import Final

from hookseal.worker.metrics.metric import Aggregation, Kind, Metric

ENDPOINTS_FAILING: Final = Metric(
    name="hookseal_endpoints_failing",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Enabled endpoints to which no attempt has succeeded for at least a minute. Leader only.",
)
ENDPOINT_FAILING: Final = Metric(
    name="hookseal_endpoint_failing_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="How long ago the first of the failures in a row of an endpoint was, for the ten enabled endpoints that have "
    "failed for longest. The others are only counted, by `hookseal_endpoints_failing`. Leader only.",
    labels={"endpoint": ()},
)
