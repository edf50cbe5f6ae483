"""The metrics of the whole installation, which the leader measures once a sweep."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from hookseal.dispatcher.endpoint_rules import LIVE_SECONDS
from hookseal.ground.clock import Clock
from hookseal.postgres.handles import Connection, Pool, connected
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import translated
from hookseal.secrets.endpoint.schedule import WARNING
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.counters import Reading, WorkerMeter
from hookseal.worker.metrics.failing import ENDPOINT_FAILING, ENDPOINTS_FAILING
from hookseal.worker.metrics.lanes import BREAKERS_OPEN, LANES_CROWDED, LINES_STOPPED
from hookseal.worker.metrics.metric import Metric
from hookseal.worker.metrics.replays import REPLAY_IDLE, REPLAYS_RUNNING
from hookseal.worker.metrics.retention import RETENTION_LAG
from hookseal.worker.outage_log import Outage

COUNTED_AT_MOST: Final = 100_000
_NAMED_AT_MOST: Final = 10  # endpoints that a metric names at once
_LOOK_SECONDS: Final = 3.0  # a new leader measures within this time

_SQL: Final = Statements("hookseal.worker.metrics", "database.sql")
_MEASURED: Final = (
    RETENTION_LAG,
    definitions.OLDEST_DUE,
    definitions.DUE,
    definitions.WAITING,
    BREAKERS_OPEN,
    LANES_CROWDED,
    LINES_STOPPED,
    ENDPOINTS_FAILING,
    ENDPOINT_FAILING,
    REPLAYS_RUNNING,
    REPLAY_IDLE,
    definitions.QUEUE_DEPTH,
    definitions.RECORDS,
    definitions.KEY_AGE,
    definitions.PLAINTEXT_ROWS,
    definitions.ROTATIONS_OVERDUE,
    definitions.WORKERS_LIVE,
)


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
        self._clock = clock
        self._outage = {name: Outage("measure", log.bind(of=name)) for name in ("postgresql", "redis")}
        self._figures: dict[str, Reading] = {}

    def report_to(self, meter: WorkerMeter) -> None:
        """Have the meter report the figures."""
        for metric in _MEASURED:
            meter.watch(metric, partial(self.figure, metric))

    def figure(self, metric: Metric) -> Reading:
        """Return the last value, None if it could not be measured or another worker leads."""
        return self._figures.get(metric.name) if self._leads() else None

    async def run(self) -> None:
        """Measure until cancelled. A failure is logged once for each outage, and its figures are absent meanwhile."""
        while True:
            if self._leads():
                await self.once()
                await self._clock.sleep(self._rules.seconds)
            else:
                await self._clock.sleep(min(self._rules.seconds, _LOOK_SECONDS))

    async def once(self) -> None:
        """Measure everything that can be measured now."""
        figures: dict[str, Reading] = {}
        with self._outage["postgresql"].survived(), translated():
            async with connected(self._pool) as connection:
                figures.update(await _stored(connection, retention_days=self._rules.retention_days))
        with self._outage["redis"].survived():
            figures[definitions.QUEUE_DEPTH.name] = await self._queue_depth()
        self._figures = figures


async def _stored(connection: Connection, *, retention_days: int) -> Mapping[str, Reading]:
    async def number(name: str, *arguments: Any) -> float:
        return float(await _SQL.value(connection, name, *arguments))

    async def labelled(name: str, *arguments: Any) -> Mapping[str, float]:
        rows = await _SQL.rows(connection, name, *arguments)
        return {row["label"]: row["number"] for row in rows}

    async def by_key(name: str) -> Mapping[tuple[str, ...], float]:
        rows = await _SQL.rows(connection, name)
        return {(row["key_id"], row["state"]): row["number"] for row in rows}

    return {
        RETENTION_LAG.name: await number("retention_lag_seconds", retention_days),
        definitions.OLDEST_DUE.name: await number("oldest_due_seconds"),
        definitions.DUE.name: await number("due", COUNTED_AT_MOST),
        definitions.WAITING.name: await labelled("waiting", COUNTED_AT_MOST),
        BREAKERS_OPEN.name: await number("breakers_open"),
        LANES_CROWDED.name: await number("lanes_crowded"),
        LINES_STOPPED.name: await number("lines_stopped"),
        ENDPOINTS_FAILING.name: await number("endpoints_failing"),
        ENDPOINT_FAILING.name: await labelled("longest_failing", _NAMED_AT_MOST),
        REPLAYS_RUNNING.name: await number("replays_running"),
        REPLAY_IDLE.name: await number("replay_idle_seconds"),
        definitions.RECORDS.name: await by_key("records"),
        definitions.KEY_AGE.name: await by_key("key_ages"),
        definitions.PLAINTEXT_ROWS.name: await number("plaintext_rows"),
        definitions.ROTATIONS_OVERDUE.name: await number("rotations_overdue", WARNING.total_seconds()),
        definitions.WORKERS_LIVE.name: await number("workers_live", LIVE_SECONDS),
    }
