"""The metrics of the whole installation, which the leader measures once a sweep."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.store import overview
from hookseal.ground.clock import Clock
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Pool, connected
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import translated
from hookseal.secrets.endpoint.schedule import WARNING
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.counters import Reading, WorkerMeter
from hookseal.worker.metrics.definitions import (
    BREAKERS_OPEN,
    ENDPOINT_FAILING,
    ENDPOINTS_FAILING,
    LANES_CROWDED,
    LINES_STOPPED,
    REPLAY_IDLE,
    REPLAYS_RUNNING,
    RETENTION_LAG,
)
from hookseal.worker.metrics.runtime import Metric
from hookseal.worker.periodic import Outage, Periodic

COUNTED_AT_MOST: Final = 100_000
_NAMED_AT_MOST: Final = 10  # endpoints that a metric names at once
_LOOK_SECONDS: Final = 3.0  # a new leader measures within this time

_SQL: Final = Statements("hookseal.worker.metrics", "database.sql")
_OF_OVERVIEW: Final = frozenset({"oldest_due_seconds", "due", "waiting"})
# By the name of its statement, which returns the labels of the metric and a number, and has at most one parameter.
_MEASURED: Final[Mapping[str, Metric]] = {
    "retention_lag_seconds": RETENTION_LAG,
    "oldest_due_seconds": definitions.OLDEST_DUE,
    "due": definitions.DUE,
    "waiting": definitions.WAITING,
    "breakers_open": BREAKERS_OPEN,
    "lanes_crowded": LANES_CROWDED,
    "lines_stopped": LINES_STOPPED,
    "endpoints_failing": ENDPOINTS_FAILING,
    "longest_failing": ENDPOINT_FAILING,
    "replays_running": REPLAYS_RUNNING,
    "replay_idle_seconds": REPLAY_IDLE,
    "records": definitions.RECORDS,
    "key_ages": definitions.KEY_AGE,
    "plaintext_rows": definitions.PLAINTEXT_ROWS,
    "rotations_overdue": definitions.ROTATIONS_OVERDUE,
    "workers_live": definitions.WORKERS_LIVE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The time between two measurements, and for how many days finished deliveries are kept."""

    seconds: float
    retention_days: int


class Measuring:
    """Measures every `rules.seconds` while `leads` is true; while it is not, there are no figures."""

    def __init__(
        self,
        pool: Pool,
        queue_depth: Callable[[], Awaitable[int]],
        leads: Callable[[], bool],
        *,
        rules: Rules,
        clock: Clock,
        log: Any,
    ) -> None:
        self._pool = pool
        self._queue_depth = queue_depth
        self._leads = leads
        self._rules = rules
        self.loop = Periodic(
            "measure",
            self.once,
            every=rules.seconds,
            leads=leads,
            follow=min(rules.seconds, _LOOK_SECONDS),
            clock=clock,
            log=log,
        )
        self._outage = {name: Outage("measure", log.bind(of=name)) for name in ("postgresql", "redis")}
        self._figures: dict[str, Reading] = {}

    def report_to(self, meter: WorkerMeter) -> None:
        """Have the meter report the figures."""
        for metric in (definitions.QUEUE_DEPTH, *_MEASURED.values()):
            meter.watch(metric, partial(self.figure, metric))

    def figure(self, metric: Metric) -> Reading:
        """Return the last value, None if it could not be measured or another worker leads."""
        return self._figures.get(metric.name) if self._leads() else None

    async def once(self) -> None:
        """Measure everything that can be measured now. What fails is logged, and its figures are absent."""
        figures: dict[str, Reading] = {}
        with self._outage["postgresql"].survived(), translated():
            async with connected(self._pool) as connection:
                figures.update(await _stored(connection, retention_days=self._rules.retention_days))
        with self._outage["redis"].survived():
            figures[definitions.QUEUE_DEPTH.name] = await self._queue_depth()
        self._figures = figures


async def _stored(connection: Connection, *, retention_days: int) -> Mapping[str, Reading]:
    """Return all figures of the database, which are measured in one statement."""
    parameters: Mapping[str, object] = {
        "retention_lag_seconds": retention_days,
        "due": COUNTED_AT_MOST,
        "waiting": COUNTED_AT_MOST,
        "longest_failing": _NAMED_AT_MOST,
        "rotations_overdue": WARNING.total_seconds(),
        "workers_live": LIVE_SECONDS,
    }
    numbered = {name: f"${number}" for number, name in enumerate(parameters, 1)}
    text = "\nUNION ALL\n".join(_part(name, numbered.get(name, "")) for name in _MEASURED)
    figures: dict[str, Any] = {metric.name: {} for metric in _MEASURED.values() if metric.labels}
    for name, labels, number in await connection.fetch(text, *parameters.values(), timeout=ANSWER_SECONDS):
        metric = _MEASURED[name]
        if metric.labels:
            figures[metric.name][labels[0] if len(labels) == 1 else tuple(labels)] = number
        else:
            figures[metric.name] = number
    return figures


def _part(name: str, parameter: str) -> str:
    """Return the part of the whole statement that measures this figure, with this parameter."""
    labels = [f"label_{number}" for number in range(len(_MEASURED[name].labels))]
    text = (overview.SQL if name in _OF_OVERVIEW else _SQL)[name]
    return (
        f"SELECT '{name}' AS name, ARRAY[{', '.join(labels)}]::text[] AS labels, number::float8 AS number\n"
        f"FROM ({text.replace('$1', parameter)}) AS of ({', '.join([*labels, 'number'])})"
    )
