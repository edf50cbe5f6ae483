"""Writes which endpoints are failing or have recovered, and disables those that fail for too long."""

from collections.abc import Callable
from typing import Any, Final

from hookseal.dispatcher.endpoint_health import BATCH, Failing, failing_too_long, mark_failing, mark_recovered
from hookseal.dispatcher.failing_endpoints import FailingEndpoints
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable
from hookseal.operations.endpoint.endpoints import disable_failing_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.handles import Pool, connected
from hookseal.secrets.boot import Unlocked
from hookseal.worker.housekeeping import Failures
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.outage_log import Outage

WRITE_SECONDS: Final = 5.0
DISABLE_SECONDS: Final = 60.0


class HealthReports:
    """Writes every five seconds which endpoints this worker found failing or recovered."""

    def __init__(self, pool: Pool, failing: FailingEndpoints, *, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._failing = failing
        self._clock = clock
        self._log = log
        self._outage = Outage("endpoint_health", log)

    async def run(self) -> None:
        """Do this until cancelled. An outage is logged once; what was not written then is written after it."""
        while True:
            with self._outage.survived():
                await self.once()
            await self._clock.sleep(WRITE_SECONDS)

    async def once(self) -> None:
        """Write and log what was noticed. Raises `Unavailable`: all of it is then kept."""
        changes = self._failing.take()
        try:
            if changes.failing:
                for tenant, endpoint in await mark_failing(self._pool, changes.failing):
                    self._log.warning("endpoint.failing", tenant_id=tenant, endpoint_id=endpoint)
            if changes.recovered:
                for tenant, endpoint in await mark_recovered(self._pool, changes.recovered):
                    self._log.info("endpoint.recovered", tenant_id=tenant, endpoint_id=endpoint)
        except Unavailable:
            self._failing.put_back(changes)
            raise


class Disabling:
    """Disables the endpoints that fail for too long; it looks once a minute while `leads` is true.

    Each has its own transaction, with its audit row as the actor `who`: the audit log of one tenant delays no other.
    """

    def __init__(
        self,
        pool: Pool,
        unlocked: Unlocked,
        leads: Callable[[], bool],
        *,
        who: str,
        after_seconds: int,
        clock: Clock,
        meter: WorkerMeter,
        log: Any,
    ) -> None:
        self._pool = pool
        self._unlocked = unlocked
        self._leads = leads
        self._who = who
        self._after_seconds = after_seconds
        self._clock = clock
        self._meter = meter
        self._log = log
        self._outage = Outage("disabling", log)
        self._failures = Failures("endpoint.disabling", log)

    async def run(self) -> None:
        """Look until cancelled. An outage is logged once."""
        while True:
            with self._outage.survived():
                await self.once()
            await self._clock.sleep(DISABLE_SECONDS)

    async def once(self) -> None:
        """Disable every endpoint for which it is time, unless another worker leads. Raises `Unavailable`."""
        self._failures.begin()
        page: list[Failing] = []
        while self._leads():
            page = await failing_too_long(self._pool, page[-1] if page else None, after_seconds=self._after_seconds)
            for failing in page:
                with self._failures.survived(tenant_id=failing.tenant_id, endpoint_id=failing.endpoint_id):
                    await self._disable(failing)
            if len(page) < BATCH:
                break
        self._failures.end()

    async def _disable(self, failing: Failing) -> None:
        async with connected(self._pool) as connection:
            operator = Operator(connection=connection, unlocked=self._unlocked, who=self._who)
            reason = await disable_failing_endpoint(operator, failing, after_seconds=self._after_seconds)
        if reason is not None:
            self._meter.disabled()
            self._log.warning(
                "endpoint.disabled", tenant_id=failing.tenant_id, endpoint_id=failing.endpoint_id, reason=reason
            )
