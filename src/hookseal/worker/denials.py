"""Secrets that were refused for good, counted as deliveries meet them, and audited by the minute beside them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.ground.clock import Clock
from hookseal.ground.errors import HooksealError, Unavailable
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.denials import Denied, tell_denied
from hookseal.operations.operator import Operator
from hookseal.schema.database import Connection, Pool, connected
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.errors import SecretError
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.outage import Outage
from hookseal.worker.pause import at_most

EVERY_SECONDS: Final = 60.0
MOST_TENANTS: Final = 1_000  # what is refused to more at a time is counted under `_system`, without their names
MOST_ENDPOINTS: Final = 10
_UNANSWERED_IN_A_ROW: Final = 3  # one chain may be held by somebody; so many mean that PostgreSQL does not answer
_END_SECONDS: Final = 2.0


@dataclass(slots=True, kw_only=True)
class _Count:
    """What was counted of a tenant since its first refusal that is in no row yet."""

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


class Denials:
    """Counts at once, and writes one row for a tenant each minute. A delivery waits for none of it.

    What could not be written goes on being counted, and is written once PostgreSQL answers; a row whose commit was not
    answered is looked for first, so that none is written twice. What the log does not take is logged and counted in its
    place. What dies with the process is the last minute; a drain writes it.
    """

    def __init__(
        self, pool: Pool, unlocked: Unlocked, *, worker_id: str, clock: Clock, meter: WorkerMeter, log: Any
    ) -> None:
        self._pool = pool
        self._unlocked = unlocked
        self._worker_id = worker_id
        self._clock = clock
        self._meter = meter
        self._log = log
        self._outage = Outage("denials", log)
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

    async def run(self) -> None:
        """Audit what was counted, every minute, for ever."""
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            with self._outage.survived():
                await self.once()

    async def end(self) -> None:
        """Audit what was counted until now, within two seconds; what cannot be is logged. Raises nothing."""
        try:
            await at_most(_END_SECONDS, self._all())
        except Exception as error:  # noqa: BLE001 -- the process ends: all that is left is to say it
            counting = (self._row(tenant, count) for tenant, count in self._counting.items())
            for row in (*self._rows.values(), *counting):
                self._not_audited(row, error)

    async def once(self) -> None:
        """Audit what was counted until now, none held up by another one whose log somebody spoilt or holds.

        Raises `Unavailable`: what is not told then is kept.
        """
        self._close()
        unanswered: Unavailable | None = None
        in_a_row = 0
        for tenant, row in list(self._rows.items()):
            try:
                await self._tell(row)
            except Unavailable as error:
                unanswered, in_a_row = error, in_a_row + 1
                if in_a_row >= _UNANSWERED_IN_A_ROW:
                    break
                continue
            except Exception as error:  # noqa: BLE001 -- logged and counted; it would not fare better the next time
                self._meter.audit_refused()
                self._not_audited(row, error)
            in_a_row = 0
            del self._rows[tenant]
            self._tried.discard(tenant)
        if unanswered is not None:
            raise unanswered

    async def _all(self) -> None:
        while self._rows or self._counting:  # whoever waited to be written had counts beside
            await self.once()

    def _close(self) -> None:
        """Make a row of every count whose tenant has none that still waits to be written."""
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

    async def _tell(self, row: Denied) -> None:
        again = row.tenant_id in self._tried
        self._tried.add(row.tenant_id)
        with translated():
            async with connected(self._pool) as connection:
                await self._audit(connection, row, again=again)

    async def _audit(self, connection: Connection, row: Denied, *, again: bool) -> None:
        await self._unlocked.versions.refresh()
        operator = Operator(connection=connection, unlocked=self._unlocked, who=f"worker/{self._worker_id}")
        await tell_denied(operator, row, again=again)

    def _not_audited(self, row: Denied, error: Exception) -> None:
        reason = str(error) if isinstance(error, HooksealError) else type(error).__name__
        told: Mapping[str, object] = {
            "denied": dict(row.counts),
            "endpoints": list(row.endpoints),
            "since": row.since.isoformat(),
            "until": row.until.isoformat(),
        }
        self._log.error("secret.denied_unaudited", tenant_id=row.tenant_id, reason=reason, **told)
