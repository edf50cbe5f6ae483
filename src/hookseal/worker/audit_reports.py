"""Writes refused secrets and stale rows, which deliveries notice, into the audit log. No delivery waits for that.

Refusals are counted and audited every minute. A stale row is audited once, as soon as PostgreSQL accepts it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from hookseal.errors import SecretError, Unavailable
from hookseal.ground.clock import Clock
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.ground.log import why
from hookseal.ground.pointer import Pointer
from hookseal.operations.audit_reports import Denied, Stale, audit_denied, audit_stale
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool, connected
from hookseal.postgres.translate import is_locked, translated
from hookseal.secrets.boot import Unlocked
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.periodic import Periodic, at_most

EVERY_SECONDS: Final = 60.0
MOST_TENANTS: Final = 1_000  # refusals of further tenants are counted together under `_system`
MOST_ENDPOINTS: Final = 10
_UNANSWERED_IN_A_ROW: Final = 3  # one may have been too slow; three mean that PostgreSQL does not answer
_END_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 1.0
_MOST_STALE: Final = 1_000  # of further ones, each probe of the endpoint reports them again


@dataclass(slots=True, kw_only=True)
class _Count:
    """The refusals of a tenant that are in no audit row yet."""

    since: datetime
    until: datetime
    codes: Counter[str] = field(default_factory=Counter)
    endpoints: dict[EndpointId, None] = field(default_factory=dict)
    are_all: bool = True

    def add(self, endpoint: EndpointId, code: str, now: datetime) -> None:
        self.until = now
        self.codes[code] += 1
        if endpoint in self.endpoints:
            return
        if len(self.endpoints) < MOST_ENDPOINTS:
            self.endpoints[endpoint] = None
        else:
            self.are_all = False


class _Reports:
    """The base of both kinds of reports: the connections, secrets, metrics and log of a worker."""

    def __init__(
        self, pool: Pool, unlocked: Unlocked, *, worker_id: str, clock: Clock, meter: WorkerMeter, log: Any
    ) -> None:
        self._pool = pool
        self._unlocked = unlocked
        self._worker_id = worker_id
        self._clock = clock
        self._meter = meter
        self._log = log

    @asynccontextmanager
    async def _operator(self) -> AsyncIterator[Operator]:
        """Provide this worker as an operator, with the newest version of the integrity key, until the block ends."""
        with translated():
            async with connected(self._pool) as connection:
                await self._unlocked.versions.refresh()
                yield Operator(connection=connection, unlocked=self._unlocked, who=f"worker/{self._worker_id}")


class DenialReports(_Reports):
    """Counts refusals immediately, and writes one row for each tenant every minute.

    A row that could not be written is kept until PostgreSQL answers. If the answer to a commit was lost, the row is
    looked for first, so that no row is written twice. A row that the audit log refuses is logged and counted instead. A
    drain writes the last rows; if the process dies, those of the last minute are lost.
    """

    def __init__(
        self, pool: Pool, unlocked: Unlocked, *, worker_id: str, clock: Clock, meter: WorkerMeter, log: Any
    ) -> None:
        super().__init__(pool, unlocked, worker_id=worker_id, clock=clock, meter=meter, log=log)
        self.loop = Periodic("denials", self.once, first=EVERY_SECONDS, every=EVERY_SECONDS, clock=clock, log=log)
        self._counting: dict[TenantId, _Count] = {}
        self._rows: dict[TenantId, Denied] = {}
        self._tried: set[TenantId] = set()

    def add(self, pointer: Pointer, error: SecretError) -> None:
        """Count that this endpoint's secrets were refused."""
        tenant, now = pointer.tenant_id, self._clock.now()
        if tenant not in self._counting and len(self._counting) >= MOST_TENANTS:
            tenant = SYSTEM_TENANT
        count = self._counting.setdefault(tenant, _Count(since=now, until=now))
        count.add(pointer.endpoint_id, error.code, now)

    async def end(self) -> None:
        """Audit all counted refusals within two seconds, and log those that cannot be audited. Raises nothing."""
        try:
            await at_most(_END_SECONDS, self._all())
        except Exception as error:  # noqa: BLE001 -- the process ends, so they are logged instead
            counting = (self._row(tenant, count) for tenant, count in self._counting.items())
            for row in (*self._rows.values(), *counting):
                self._not_audited(row, error)

    async def once(self) -> None:
        """Audit all counted refusals. A tenant whose audit log is broken or locked does not delay the others.

        Raises `Unavailable`: the rows that are not audited are then kept.
        """
        self._close()
        unanswered: Unavailable | None = None
        in_a_row = 0
        for tenant, row in list(self._rows.items()):
            try:
                await self._audit(row)
            except Unavailable as error:
                unanswered, in_a_row = error, 0 if is_locked(error) else in_a_row + 1
                if in_a_row >= _UNANSWERED_IN_A_ROW:
                    break
                continue
            except Exception as error:  # noqa: BLE001 -- it is logged and counted; a retry would fail again
                self._meter.audit_refused()
                self._not_audited(row, error)
            in_a_row = 0
            del self._rows[tenant]
            self._tried.discard(tenant)
        if unanswered is not None:
            raise unanswered

    async def _all(self) -> None:
        while self._rows or self._counting:  # a tenant whose row waited may have new counts
            await self.once()

    def _close(self) -> None:
        """Turn counts into rows, except those of tenants with a row that is not written yet."""
        for tenant in [tenant for tenant in self._counting if tenant not in self._rows]:
            if tenant == SYSTEM_TENANT or len(self._rows) <= MOST_TENANTS:
                self._rows[tenant] = self._row(tenant, self._counting.pop(tenant))

    def _row(self, tenant: TenantId, count: _Count) -> Denied:
        return Denied(
            tenant_id=tenant,
            worker=self._worker_id,
            since=count.since,
            until=count.until,
            counts=dict(count.codes),
            endpoints=tuple(count.endpoints),
            endpoints_are_all=count.are_all,
        )

    async def _audit(self, row: Denied) -> None:
        again = row.tenant_id in self._tried
        self._tried.add(row.tenant_id)
        async with self._operator() as operator:
            await audit_denied(operator, row, again=again)

    def _not_audited(self, row: Denied, error: Exception) -> None:
        facts: Mapping[str, object] = {
            "denied": dict(row.counts),
            "endpoints": list(row.endpoints),
            "since": row.since.isoformat(),
            "until": row.until.isoformat(),
        }
        self._log.error("secret.denied_unaudited", tenant_id=row.tenant_id, **why(error), **facts)


class StaleReports(_Reports):
    """Collects stale rows, and audits each of them once, as soon as PostgreSQL accepts it."""

    def __init__(
        self, pool: Pool, unlocked: Unlocked, *, worker_id: str, clock: Clock, meter: WorkerMeter, log: Any
    ) -> None:
        super().__init__(pool, unlocked, worker_id=worker_id, clock=clock, meter=meter, log=log)
        self.loop = Periodic("stale", self._next, every=_AGAIN_SECONDS, clock=clock, log=log)
        self._waiting: dict[Stale, None] = {}
        self._audited: dict[Stale, None] = {}
        self._unaudited: set[Stale] = set()
        self._some = asyncio.Event()

    def add(self, pointer: Pointer, reason: str) -> None:
        """Queue for the audit log that this row, or a secret that it points to, is stale."""
        stale = Stale(
            tenant_id=pointer.tenant_id,
            endpoint_id=pointer.endpoint_id,
            generation=pointer.generation,
            reason=reason,
            restore_epoch=pointer.restore_epoch,
        )
        if stale in self._audited or stale in self._waiting or len(self._waiting) >= _MOST_STALE:
            return
        self._waiting[stale] = None
        self._some.set()

    async def _next(self) -> bool:
        """Wait for a stale row, and audit it."""
        await self._some.wait()
        await self.once()
        return True

    async def once(self) -> None:
        """Audit the queued stale rows. One whose audit log is locked, or whose log or key is broken, delays no others.

        Raises `Unavailable`, `Refused`, `SecretError`: rows that are not audited are kept, and are already logged.
        """
        failure: Exception | None = None
        locked = set[TenantId]()
        for stale in list(self._waiting):
            if stale.tenant_id in locked:
                continue
            try:
                is_new = await self._audit(stale)
            except Unavailable as error:
                if not is_locked(error):
                    raise
                failure = error
                locked.add(stale.tenant_id)
                continue
            except Exception as error:  # noqa: BLE001 -- raised below, after the others
                failure = error
                self._alarm(stale, audited=False)
                continue
            if is_new:
                self._alarm(stale, audited=True)
            self._unaudited.discard(stale)
            del self._waiting[stale]
            self._remember(stale)
        if failure is not None:
            raise failure
        if not self._waiting:
            self._some.clear()

    async def _audit(self, stale: Stale) -> bool:
        async with self._operator() as operator:
            return await audit_stale(operator, stale)

    def _alarm(self, stale: Stale, *, audited: bool) -> None:
        """Count and log a stale row, once."""
        if stale in self._unaudited:
            return
        if not audited:
            self._unaudited.add(stale)
            self._meter.audit_refused()
        self._meter.stale_found()
        self._log.error(
            "stale.found",
            tenant_id=stale.tenant_id,
            endpoint_id=stale.endpoint_id,
            reason=stale.reason,
            audited=audited,
        )

    def _remember(self, stale: Stale) -> None:
        self._audited[stale] = None
        if len(self._audited) > _MOST_STALE:
            del self._audited[next(iter(self._audited))]
