"""The metrics of replay jobs."""

from enum import StrEnum
from typing import Final

from hookseal.worker.metrics.metric import Aggregation, Kind, Metric


class SkippedBecause(StrEnum):
    """Why a replay job did not replay a delivery."""

    ENDPOINT_DISABLED = "endpoint_disabled"
    ENDPOINT_DELETED = "endpoint_deleted"


REPLAYED: Final = Metric(
    name="hookseal_replayed_total",
    kind=Kind.COUNTER,
    text="Deliveries that replay jobs made due again.",
)
REPLAY_SKIPPED: Final = Metric(
    name="hookseal_replay_skipped_total",
    kind=Kind.COUNTER,
    text="Deliveries that replay jobs skipped, because their endpoint is disabled or deleted.",
    labels={"reason": tuple(SkippedBecause)},
)
REPLAYS_RUNNING: Final = Metric(
    name="hookseal_replays_running",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Replay jobs that run. Leader only.",
)
REPLAY_IDLE: Final = Metric(
    name="hookseal_replay_idle_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="The longest time since a running replay job took its last step; 0 if none runs. Leader only.",
)
