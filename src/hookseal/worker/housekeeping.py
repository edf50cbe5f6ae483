"""What the leader does with secrets: scheduled rotations, and retiring and destroying old versions."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, assert_never

from hookseal.ground.clock import Clock
from hookseal.ground.errors import HooksealError, NotFound, Unavailable
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.schedule import Announced, RotatedBySchedule, retire_ended_overlap, take_turn
from hookseal.operations.operator import Operator
from hookseal.operations.secret import purge_batch, remove_leftovers
from hookseal.postgres.handles import Pool, connected
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.endpoint import schedule
from hookseal.secrets.endpoint.schedule import Scheduled, Turn
from hookseal.secrets.store import retention
from hookseal.secrets.store.retention import EndedOverlap
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.counters import Reading, WorkerMeter
from hookseal.worker.outage_log import Outage

EVERY_SECONDS: Final = 60.0
PURGE_EVERY_SECONDS: Final = 3_600.0
LOOK_SECONDS: Final = 3.0  # a new leader begins within this time
UNANSWERED_IN_A_ROW: Final = 3  # one may fail because its row is locked; three mean that PostgreSQL does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The actor in the audit log, the length of overlaps, and for how many days retired versions are kept."""

    who: str
    overlap_seconds: int
    retention_days: int


class Housekeeping:
    """Rotates every minute while `leads` is true; retires and destroys versions once an hour.

    Each endpoint, and each batch of a tenant's versions, has its own transaction on one connection of the pool, so that
    deliveries do not wait. If the worker dies, the next leader does the rest.
    """

    def __init__(
        self,
        pool: Pool,
        unlocked: Unlocked,
        leads: Callable[[], bool],
        *,
        rules: Rules,
        clock: Clock,
        log: Any,
    ) -> None:
        self._pool = pool
        self._unlocked = unlocked
        self._leads = leads
        self._rules = rules
        self._clock = clock
        self._log = log
        self._outage = Outage("housekeeping", log)
        self._purge_at = clock.monotonic()
        self._rotations = Failures("secret.scheduled_rotation", log)
        self._retirements = Failures("secret.retirement", log)
        self._purges = Failures("secret.purge", log)

    def report_to(self, meter: WorkerMeter) -> None:
        """Make the meter report for how many endpoints the rotation failed at the last check."""
        meter.watch(definitions.ROTATIONS_FAILING, self.figure)

    def figure(self) -> Reading:
        """Return that number, None if another worker leads."""
        return float(len(self._rotations.standing)) if self._leads() else None

    async def run(self) -> None:
        """Do this until cancelled. An outage is logged once. A failure of one endpoint or tenant delays no other."""
        while True:
            if self._leads():
                with self._outage.survived():
                    await self.once()
                await self._clock.sleep(EVERY_SECONDS)
            else:
                await self._clock.sleep(LOOK_SECONDS)

    async def once(self) -> None:
        """Do everything that is due now. Raises `Unavailable`; the next look then does the rest."""
        await self._unlocked.versions.refresh()
        await self.rotate_due()
        if self._clock.monotonic() >= self._purge_at:
            await self.retire()
            await self.purge()
            await self.remove_leftovers()
            self._purge_at = self._clock.monotonic() + PURGE_EVERY_SECONDS

    async def rotate_due(self) -> None:
        """Announce and make every scheduled rotation that is due. Raises `Unavailable`."""
        self._rotations.begin()
        page: list[Scheduled] = []
        while self._leads():
            page = await schedule.upcoming(self._pool, page[-1] if page else None)
            for scheduled in page:
                if scheduled.turn is not Turn.WAIT:
                    with self._rotations.survived(tenant_id=scheduled.tenant_id, endpoint_id=scheduled.endpoint_id):
                        await self._take_turn(scheduled)
            if len(page) < schedule.PAGE:
                break
        self._rotations.end()

    async def retire(self) -> None:
        """Retire the previous versions of overlaps that have ended. Raises `Unavailable`."""
        self._retirements.begin()
        page: list[EndedOverlap] = []
        while self._leads():
            page = await retention.ended_overlaps(self._pool, page[-1] if page else None)
            for each in page:
                with self._retirements.survived(tenant_id=each.tenant_id, endpoint_id=each.endpoint_id):
                    async with self._operator() as operator:
                        with suppress(NotFound):  # it was deleted meanwhile
                            await retire_ended_overlap(operator, each)
            if len(page) < retention.PAGE:
                break
        self._retirements.end()

    async def purge(self) -> None:
        """Destroy all retired versions whose retention has ended. Raises `Unavailable`."""
        self._purges.begin()
        for tenant in await retention.tenants(self._pool, days=self._rules.retention_days):
            with self._purges.survived(tenant_id=tenant):
                await self._purge(tenant)
        self._purges.end()

    async def remove_leftovers(self) -> None:
        """Remove at the providers outside PostgreSQL what no version in use needs. Raises `Unavailable`."""
        removal = await remove_leftovers(self._pool, self._unlocked)
        if removal.removed:
            self._log.info("secret.removed_at_provider", versions=removal.removed)
        if removal.error is not None:
            self._log.warning("secret.removal_failed", reason=str(removal.error))

    async def _take_turn(self, scheduled: Scheduled) -> None:
        done = None
        async with self._operator() as operator:
            with suppress(NotFound):  # it was deleted meanwhile
                done = await take_turn(operator, scheduled, overlap_seconds=self._rules.overlap_seconds)
        log = self._log.bind(tenant_id=scheduled.tenant_id, endpoint_id=scheduled.endpoint_id)
        match done:
            case Announced():
                log.warning(
                    "secret.rotation_announced",
                    generation=done.generation,
                    secret_ref=done.secret_ref,
                    rotates_at=done.rotates_at.isoformat(),
                )
            case RotatedBySchedule():
                log.warning(
                    "secret.rotated_by_schedule",
                    generation=done.generation,
                    secret_ref=done.secret_ref,
                    both_sign_until=done.both_sign_until.isoformat(),
                )
            case None:
                pass
            case _:
                assert_never(done)

    async def _purge(self, tenant: TenantId) -> None:
        destroyed, more = 0, True
        while more and self._leads():
            async with self._operator() as operator:
                batch = await purge_batch(operator, tenant, days=self._rules.retention_days)
            destroyed += batch
            more = batch == retention.BATCH
        if destroyed:
            self._log.info("secret.purged", tenant_id=tenant, versions=destroyed)

    @asynccontextmanager
    async def _operator(self) -> AsyncIterator[Operator]:
        async with connected(self._pool) as connection:
            yield Operator(connection=connection, unlocked=self._unlocked, who=self._rules.who)


class Failures:
    """The failures of the last look, each logged when it begins or when its reason changes."""

    def __init__(self, name: str, log: Any) -> None:
        self._name = name
        self._log = log
        self._current: dict[tuple[str, ...], str] = {}
        self._unanswered = 0
        self.standing: dict[tuple[str, ...], str] = {}

    def begin(self) -> None:
        """Begin a look."""
        self._current = {}
        self._unanswered = 0

    def end(self) -> None:
        """End a complete look: the failures in it are now the standing ones."""
        self.standing = self._current

    @contextmanager
    def survived(self, **of: str) -> Iterator[None]:
        """Catch and log every exception of the block. After several `Unavailable` in a row, raise the last one."""
        try:
            yield
        except Unavailable as error:
            self._unanswered += 1
            self._failed(str(error), of, is_defect=False)
            if self._unanswered >= UNANSWERED_IN_A_ROW:
                raise
        except HooksealError as error:
            self._failed(str(error), of, is_defect=False)
        except Exception as error:  # noqa: BLE001 -- it is logged, and the look continues with the next one
            self._failed(type(error).__name__, of, is_defect=True)
        else:
            self._unanswered = 0

    def _failed(self, reason: str, of: Mapping[str, str], *, is_defect: bool) -> None:
        key = tuple(of.values())
        self._current[key] = reason
        if self.standing.get(key) == reason:
            return
        if is_defect:
            self._log.exception(f"{self._name}_defect", **of)
        else:
            self._log.error(f"{self._name}_failed", reason=reason, **of)
