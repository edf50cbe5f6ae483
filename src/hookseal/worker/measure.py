"""What one worker measures for the whole installation: the one that leads the outbox, once a sweep."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.endpoint_rules import LIVE_SECONDS
from hookseal.ground.clock import Clock
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Connection, Pool, connected
from hookseal.secrets.schedule import WARNING
from hookseal.worker import metrics
from hookseal.worker.meter import Reading, WorkerMeter
from hookseal.worker.metrics import Metric
from hookseal.worker.outage import Outage

COUNTED_AT_MOST: Final = 100_000
_LOOK_SECONDS: Final = 3.0  # how soon after it begins to lead a worker measures

_SQL: Final = statements("hookseal.worker", "measure.sql")
_MEASURED: Final = (
    metrics.OLDEST_DUE,
    metrics.DUE,
    metrics.WAITING,
    metrics.QUEUE_DEPTH,
    metrics.RECORDS,
    metrics.KEY_AGE,
    metrics.PLAINTEXT_ROWS,
    metrics.ROTATIONS_OVERDUE,
    metrics.WORKERS_LIVE,
)


class Measuring:
    """Measures every `seconds` while `leads` is true; while it is not, there are no figures."""

    def __init__(
        self,
        pool: Pool,
        queue_depth: Callable[[], Awaitable[int]],
        leads: Callable[[], bool],
        *,
        seconds: float,
        clock: Clock,
        log: Any,
    ) -> None:
        self._pool = pool
        self._queue_depth = queue_depth
        self._leads = leads
        self._seconds = seconds
        self._clock = clock
        self._outage = {name: Outage("measure", log.bind(of=name)) for name in ("postgresql", "redis")}
        self._figures: dict[str, Reading] = {}

    def told_by(self, meter: WorkerMeter) -> None:
        """Have the meter tell the figures."""
        for metric in _MEASURED:
            meter.watch(metric, partial(self.figure, metric))

    def figure(self, metric: Metric) -> Reading:
        """Return what was measured last, None if that was not possible or another worker leads."""
        return self._figures.get(metric.name) if self._leads() else None

    async def run(self) -> None:
        """Measure, for ever. What fails is told once an outage, and its figures are absent."""
        while True:
            if self._leads():
                await self.once()
                await self._clock.sleep(self._seconds)
            else:
                await self._clock.sleep(min(self._seconds, _LOOK_SECONDS))

    async def once(self) -> None:
        """Measure all that can be measured now."""
        figures: dict[str, Reading] = {}
        with self._outage["postgresql"].survived(), translated():
            async with connected(self._pool) as connection:
                figures.update(await _stored(connection))
        with self._outage["redis"].survived():
            figures[metrics.QUEUE_DEPTH.name] = await self._queue_depth()
        self._figures = figures


async def _stored(connection: Connection) -> Mapping[str, Reading]:
    async def number(name: str, *arguments: Any) -> float:
        return float(await connection.fetchval(_SQL[name], *arguments, timeout=ANSWER_SECONDS))

    async def labelled(name: str, *arguments: Any) -> Mapping[str, float]:
        rows = await connection.fetch(_SQL[name], *arguments, timeout=ANSWER_SECONDS)
        return {row["label"]: row["number"] for row in rows}

    async def by_key(name: str) -> Mapping[tuple[str, ...], float]:
        rows = await connection.fetch(_SQL[name], timeout=ANSWER_SECONDS)
        return {(row["key_id"], row["state"]): row["number"] for row in rows}

    return {
        metrics.OLDEST_DUE.name: await number("oldest_due_seconds"),
        metrics.DUE.name: await number("due", COUNTED_AT_MOST),
        metrics.WAITING.name: await labelled("waiting", COUNTED_AT_MOST),
        metrics.RECORDS.name: await by_key("records"),
        metrics.KEY_AGE.name: await by_key("key_ages"),
        metrics.PLAINTEXT_ROWS.name: await number("plaintext_rows"),
        metrics.ROTATIONS_OVERDUE.name: await number("rotations_overdue", WARNING.total_seconds()),
        metrics.WORKERS_LIVE.name: await number("workers_live", LIVE_SECONDS),
    }
