"""What deliveries found to be put back, on its way into the audit log: they do not wait for it."""

import asyncio
from typing import Any, Final

from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable
from hookseal.ground.pointer import Pointer
from hookseal.operations.findings import Finding, tell_put_back
from hookseal.operations.operator import Operator
from hookseal.schema.database import Pool, connected
from hookseal.secrets.boot import Unlocked
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.outage import Outage

_AGAIN_SECONDS: Final = 1.0
_MOST: Final = 1_000  # each look at a delivery that waits finds it again


class Findings:
    """Takes findings at once and audits each of them once, as soon as PostgreSQL lets it."""

    def __init__(
        self, pool: Pool, unlocked: Unlocked, *, worker_id: str, clock: Clock, meter: WorkerMeter, log: Any
    ) -> None:
        self._pool = pool
        self._unlocked = unlocked
        self._who = f"worker/{worker_id}"
        self._clock = clock
        self._meter = meter
        self._log = log
        self._outage = Outage("findings", log)
        self._untold: dict[Finding, None] = {}
        self._told: dict[Finding, None] = {}
        self._unaudited: set[Finding] = set()
        self._some = asyncio.Event()

    def add(self, pointer: Pointer, reason: str) -> None:
        """Have it audited that this row, or a secret that it points at, was put back."""
        found = Finding(
            tenant_id=pointer.tenant_id,
            endpoint_id=pointer.endpoint_id,
            generation=pointer.generation,
            reason=reason,
            restore_epoch=pointer.restore_epoch,
        )
        if found in self._told or found in self._untold or len(self._untold) >= _MOST:
            return
        self._untold[found] = None
        self._some.set()

    async def run(self) -> None:
        """Audit what is found, for ever."""
        while True:
            await self._some.wait()
            with self._outage.survived():
                await self.once()
            if self._outage.lasts:
                await self._clock.sleep(_AGAIN_SECONDS)

    async def once(self) -> None:
        """Audit what was found until now, none held up by another one whose log or key somebody spoilt as well.

        Raises `Unavailable`, `Refused`, `SecretError`: what is not told yet is kept, and alarmed all the same.
        """
        untold: Exception | None = None
        for found in list(self._untold):
            try:
                is_new = await self._tell(found)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 -- raised below, once the others had their turn
                untold = error
                self._alarm(found, audited=False)
                continue
            if is_new:
                self._alarm(found, audited=True)
            self._unaudited.discard(found)
            del self._untold[found]
            self._remember(found)
        if untold is not None:
            raise untold
        if not self._untold:
            self._some.clear()

    async def _tell(self, found: Finding) -> bool:
        async with connected(self._pool) as connection:
            operator = Operator(connection=connection, unlocked=self._unlocked, who=self._who)
            await self._unlocked.versions.refresh()
            return await tell_put_back(operator, found)

    def _alarm(self, found: Finding, *, audited: bool) -> None:
        """Count and log it, once."""
        if found in self._unaudited:
            return
        if not audited:
            self._unaudited.add(found)
            self._meter.audit_refused()
        self._meter.put_back()
        self._log.error(
            "rollback.found",
            tenant_id=found.tenant_id,
            endpoint_id=found.endpoint_id,
            reason=found.reason,
            audited=audited,
        )

    def _remember(self, found: Finding) -> None:
        self._told[found] = None
        if len(self._told) > _MOST:
            del self._told[next(iter(self._told))]
