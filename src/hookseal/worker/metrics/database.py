"""The metrics of the whole installation, which the leader measures once a sweep."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.store import backlog, overview
from hookseal.ground.clock import Clock
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Pool, connected
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import translated
from hookseal.secrets.endpoint.schedule import WARNING
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.counters import Reading, WorkerMeter
from hookseal.worker.metrics.definitions import (
    BREAKER_OPEN,
    BREAKERS_OPEN,
    ENDPOINT_FAILING,
    ENDPOINTS_FAILING,
    LANES_CROWDED,
    LINES_STOPPED,
    MEASURED_AGE,
    REPLAY_IDLE,
    REPLAYS_RUNNING,
    RETENTION_LAG,
    TENANT_OLDEST,
    TENANT_PENDING,
    TENANT_STOPPED,
)
from hookseal.worker.metrics.runtime import Metric
from hookseal.worker.periodic import Outage, Periodic

COUNTED_AT_MOST: Final = 100_000
OTHER: Final = "_other"  # the tenants that are not named; it is the id of none
_TENANTS_READ: Final = 10_000  # that may have something pending
_NAMED_AT_MOST: Final = 10  # endpoints that a metric names at once
_LONGEST_LABEL: Final = 63  # as an id of a tenant: a row of another program may have any text
_LOOK_SECONDS: Final = 3.0  # a new leader measures within this time

_SQL: Final = Statements("hookseal.worker.metrics", "database.sql")
_OF_OVERVIEW: Final = frozenset({"oldest_due_seconds", "due", "waiting", "oldest_waiting"})
# By the name of its statement, which returns the labels of the metric and a number, and has at most one parameter.
_MEASURED: Final[Mapping[str, Metric]] = {
    "retention_lag_seconds": RETENTION_LAG,
    "oldest_due_seconds": definitions.OLDEST_DUE,
    "due": definitions.DUE,
    "waiting": definitions.WAITING,
    "oldest_waiting": definitions.PENDING_OLDEST,
    "breakers_open": BREAKERS_OPEN,
    "longest_open": BREAKER_OPEN,
    "tenants_stopped": TENANT_STOPPED,
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
    """The time between two measurements, the days for which deliveries are kept, and how many tenants are named."""

    seconds: float
    retention_days: int
    tenants: int


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
        self._clock = clock
        self._figures: dict[str, Reading] = {}
        self._measured_at: float | None = None

    def report_to(self, meter: WorkerMeter) -> None:
        """Have the meter report the figures."""
        for metric in (definitions.QUEUE_DEPTH, TENANT_PENDING, TENANT_OLDEST, *_MEASURED.values()):
            meter.watch(metric, partial(self.figure, metric))
        meter.watch(MEASURED_AGE, self.age)

    def figure(self, metric: Metric) -> Reading:
        """Return the last value, None if it could not be measured or another worker leads."""
        return self._figures.get(metric.name) if self._leads() else None

    def age(self) -> float | None:
        """Return how long ago the measurement began whose figures are reported, None if there are none."""
        if self._measured_at is None or not self._leads():
            return None
        return self._clock.monotonic() - self._measured_at

    async def once(self) -> None:
        """Measure everything that can be measured now. What fails is logged, and its figures are absent."""
        figures: dict[str, Reading] = {}
        began_at = self._clock.monotonic()
        with self._outage["postgresql"].survived(), translated():
            async with connected(self._pool) as connection:
                figures.update(await _stored(connection, self._rules))
                async with asyncio.timeout(ANSWER_SECONDS):
                    figures.update(await _of_tenants(connection, self._rules.tenants))
        with self._outage["redis"].survived():
            figures[definitions.QUEUE_DEPTH.name] = await self._queue_depth()
        self._figures, self._measured_at = figures, began_at


async def _stored(connection: Connection, rules: Rules) -> Mapping[str, Reading]:
    """Return all figures of the database, which are measured in one statement."""
    parameters: Mapping[str, object] = {
        "retention_lag_seconds": rules.retention_days,
        "due": COUNTED_AT_MOST,
        "waiting": COUNTED_AT_MOST,
        "oldest_waiting": overview.LANES,
        "lines_stopped": COUNTED_AT_MOST,
        "longest_failing": _NAMED_AT_MOST,
        "longest_open": rules.tenants,
        "tenants_stopped": rules.tenants,
        "rotations_overdue": WARNING.total_seconds(),
        "workers_live": LIVE_SECONDS,
    }
    numbered = {name: f"${number}" for number, name in enumerate(parameters, 1)}
    text = "\nUNION ALL\n".join(_part(name, numbered.get(name, "")) for name in _MEASURED)
    figures: dict[str, Any] = {metric.name: {} for metric in _MEASURED.values() if metric.labels}
    for name, labels, number in await connection.fetch(text, *parameters.values(), timeout=ANSWER_SECONDS):
        metric = _MEASURED[name]
        if metric.labels:
            values = tuple(label[:_LONGEST_LABEL] for label in labels)
            figures[metric.name][values] = number
        else:
            figures[metric.name] = number
    return figures


async def _of_tenants(connection: Connection, named: int) -> Mapping[str, Reading]:
    """Return what is pending of each of so many tenants, those that have waited for longest, and of all others."""
    found = await backlog.by_tenant(connection, tenants=max(named, 1), read=_TENANTS_READ)
    pending = {OTHER: found["others"]["pending"]}
    oldest = {OTHER: found["others"]["oldest_seconds"] or 0.0}
    for number, each in enumerate(found["tenants"]):
        tenant = each["tenant_id"][:_LONGEST_LABEL] if number < named else OTHER
        pending[tenant] = pending.get(tenant, 0) + each["pending"]
        oldest[tenant] = max(oldest.get(tenant, 0.0), each["oldest_seconds"] or 0.0)
    return {TENANT_PENDING.name: pending, TENANT_OLDEST.name: oldest}


def _part(name: str, parameter: str) -> str:
    """Return the part of the whole statement that measures this figure, with this parameter."""
    labels = [f"label_{number}" for number in range(len(_MEASURED[name].labels))]
    text = (overview.SQL if name in _OF_OVERVIEW else _SQL)[name]
    return (
        f"SELECT '{name}' AS name, ARRAY[{', '.join(labels)}]::text[] AS labels, number::float8 AS number\n"
        f"FROM ({text.replace('$1', parameter)}) AS of ({', '.join([*labels, 'number'])})"
    )
