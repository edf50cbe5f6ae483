"""The metrics of the retention."""

from typing import Final

from hookseal.dispatcher.history import TABLES
from hookseal.worker.metrics.metric import Aggregation, Kind, Metric

REMOVED: Final = Metric(
    name="hookseal_removed_total",
    kind=Kind.COUNTER,
    text="Rows that this worker deleted because `HOOKSEAL_RETENTION_DAYS` had passed.",
    labels={"table": TABLES},
)
RETENTION_LAG: Final = Metric(
    name="hookseal_retention_lag_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="For how long the oldest finished delivery has been kept beyond `HOOKSEAL_RETENTION_DAYS`. Leader only.",
)
