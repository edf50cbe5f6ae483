"""Housekeeping with secrets, by the worker that leads: rotation by schedule, retirement, the end of old material."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, assert_never

from hookseal.ground.clock import Clock
from hookseal.ground.errors import HooksealError, NotFound, Unavailable
from hookseal.ground.ids import TenantId
from hookseal.operations.operator import Operator
from hookseal.operations.purge import purge_batch
from hookseal.operations.scheduled import Announced, RotatedBySchedule, retire_run_out, take_turn
from hookseal.schema.database import Pool, connected
from hookseal.secrets import retention, schedule
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.retention import RunOut
from hookseal.secrets.schedule import Scheduled, Turn
from hookseal.worker import metrics
from hookseal.worker.meter import Reading, WorkerMeter
from hookseal.worker.outage import Outage

EVERY_SECONDS: Final = 60.0
PURGE_EVERY_SECONDS: Final = 3_600.0
LOOK_SECONDS: Final = 3.0  # how soon after it begins to lead a worker looks
UNANSWERED_IN_A_ROW: Final = 3  # one row may be held by somebody; so many mean that PostgreSQL does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """In whose name, how long both secrets sign after a rotation, and for how many days retired material is kept."""

    who: str
    overlap_seconds: int
    retention_days: int


class Housekeeping:
    """Looks every minute while `leads` is true; retires and purges once an hour.

    Each endpoint, and each batch of a tenant's versions, is a transaction of its own on one connection of the pool,
    so deliveries wait for none of it. Whoever dies in the middle leaves the rest to the next look of whoever leads.
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
        self._rotations = _Failures("secret.scheduled_rotation", log)
        self._retirements = _Failures("secret.retirement", log)
        self._purges = _Failures("secret.purge", log)

    def told_by(self, meter: WorkerMeter) -> None:
        """Have the meter tell of how many endpoints the rotation failed at the last look."""
        meter.watch(metrics.ROTATIONS_FAILING, self.figure)

    def figure(self) -> Reading:
        """Return that number, None if another worker leads."""
        return float(len(self._rotations.standing)) if self._leads() else None

    async def run(self) -> None:
        """Keep house, for ever. An outage is told once; an endpoint or a tenant that fails holds up no other."""
        while True:
            if self._leads():
                with self._outage.survived():
                    await self.once()
                await self._clock.sleep(EVERY_SECONDS)
            else:
                await self._clock.sleep(LOOK_SECONDS)

    async def once(self) -> None:
        """Do all that is to be done now. Raises `Unavailable`; what is left is then done at the next look."""
        await self._unlocked.versions.refresh()
        await self.rotate()
        if self._clock.monotonic() >= self._purge_at:
            await self.retire()
            await self.purge()
            self._purge_at = self._clock.monotonic() + PURGE_EVERY_SECONDS

    async def rotate(self) -> None:
        """Announce and make every rotation by schedule whose time it is. Raises `Unavailable`."""
        self._rotations.begin()
        page: list[Scheduled] = []
        while self._leads():
            page = await schedule.near(self._pool, page[-1] if page else None)
            for scheduled in page:
                if scheduled.turn is not Turn.WAIT:
                    with self._rotations.survived(tenant_id=scheduled.tenant_id, endpoint_id=scheduled.endpoint_id):
                        await self._take_turn(scheduled)
            if len(page) < schedule.PAGE:
                break
        self._rotations.end()

    async def retire(self) -> None:
        """Retire what signed in overlaps that are over. Raises `Unavailable`."""
        self._retirements.begin()
        page: list[RunOut] = []
        while self._leads():
            page = await retention.run_out(self._pool, page[-1] if page else None)
            for each in page:
                with self._retirements.survived(tenant_id=each.tenant_id, endpoint_id=each.endpoint_id):
                    async with self._operator() as operator:
                        with suppress(NotFound):  # it was deleted meanwhile
                            await retire_run_out(operator, each)
            if len(page) < retention.PAGE:
                break
        self._retirements.end()

    async def purge(self) -> None:
        """Destroy all material that is past its retention. Raises `Unavailable`."""
        self._purges.begin()
        for tenant in await retention.tenants(self._pool, days=self._rules.retention_days):
            with self._purges.survived(tenant_id=tenant):
                await self._purge(tenant)
        self._purges.end()

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


class _Failures:
    """What could not be done at the last look, told when it begins to fail or fails for another reason."""

    def __init__(self, name: str, log: Any) -> None:
        self._name = name
        self._log = log
        self._found: dict[tuple[str, ...], str] = {}
        self._unanswered = 0
        self.standing: dict[tuple[str, ...], str] = {}

    def begin(self) -> None:
        """Begin a look."""
        self._found = {}
        self._unanswered = 0

    def end(self) -> None:
        """End a look that came to its end: what did not fail in it fails no more."""
        self.standing = self._found

    @contextmanager
    def survived(self, **of: str) -> Iterator[None]:
        """Let the look go on whatever the block raises; several outages in a row pass, they are no one's fault here."""
        try:
            yield
        except Unavailable as error:
            self._unanswered += 1
            self._failed(str(error), of, is_defect=False)
            if self._unanswered >= UNANSWERED_IN_A_ROW:
                raise
        except HooksealError as error:
            self._failed(str(error), of, is_defect=False)
        except Exception as error:  # noqa: BLE001 -- told, and the next ones must have their turn
            self._failed(type(error).__name__, of, is_defect=True)
        else:
            self._unanswered = 0

    def _failed(self, reason: str, of: Mapping[str, str], *, is_defect: bool) -> None:
        key = tuple(of.values())
        self._found[key] = reason
        if self.standing.get(key) == reason:
            return
        if is_defect:
            self._log.exception(f"{self._name}_defect", **of)
        else:
            self._log.error(f"{self._name}_failed", reason=reason, **of)
