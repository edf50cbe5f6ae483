"""What the leader does in the background: rotations and old secrets, retention, statistics, failing endpoints."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, assert_never

from hookseal.dispatcher.core.endpoint_health import AttemptCounts, FailingEndpoints
from hookseal.dispatcher.store import endpoint_queries
from hookseal.dispatcher.store.endpoint_health import BATCH, Failing, failing_too_long, mark_failing, mark_recovered
from hookseal.dispatcher.store.history import OLDEST, PostgresHistory, Removed
from hookseal.errors import HooksealError, NotFound, Unavailable, with_advice
from hookseal.ground.clock import Clock
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import disable_failing_endpoint
from hookseal.operations.endpoint.rotation import Announced, RotatedBySchedule, retire_ended_overlap, take_turn
from hookseal.operations.operator import OfEndpoint, Operator
from hookseal.operations.secret import purge_batch, remove_leftovers
from hookseal.postgres.pool import Pool, connected
from hookseal.postgres.translate import is_locked, translated
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.endpoint import schedule
from hookseal.secrets.endpoint.schedule import Scheduled, Turn
from hookseal.secrets.store import retention
from hookseal.secrets.store.external import Place
from hookseal.secrets.store.retention import EndedOverlap
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.counters import Reading, WorkerMeter
from hookseal.worker.periodic import Periodic, at_most

EVERY_SECONDS: Final = 60.0
PURGE_EVERY_SECONDS: Final = 3_600.0
REMOVAL_SECONDS: Final = 10.0  # of removals at providers in one look, so that they delay no rotation for longer
HOUSEKEEPING_SECONDS: Final = 3.0  # a new leader begins within this time
UNANSWERED_IN_A_ROW: Final = 3  # one may have been too slow; three mean that PostgreSQL does not answer
MOST_LOCKED: Final = 3  # locked rows of one tenant in a look, each of which it waits for up to 4.5 s

T = TypeVar("T", bound=OfEndpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class HousekeepingRules:
    """The actor in the audit log, the length of overlaps, and for how many days retired versions are kept."""

    who: str
    overlap_seconds: int
    retention_days: int


class Housekeeping:
    """Rotates every minute while `leads` is true; retires and destroys versions once an hour.

    What is then left at providers is removed for 10 s a look, until nothing is left. Each endpoint, and each batch of a
    tenant's versions, has its own transaction on one connection of the pool, so that deliveries do not wait. If the
    worker dies, the next leader does the rest.
    """

    def __init__(
        self,
        pool: Pool,
        unlocked: Unlocked,
        leads: Callable[[], bool],
        *,
        rules: HousekeepingRules,
        clock: Clock,
        log: Any,
    ) -> None:
        self._pool = pool
        self._unlocked = unlocked
        self._leads = leads
        self._rules = rules
        self._clock = clock
        self._log = log
        self.loop = Periodic(
            "housekeeping",
            self.once,
            every=EVERY_SECONDS,
            leads=leads,
            follow=HOUSEKEEPING_SECONDS,
            clock=clock,
            log=log,
        )
        self._purge_at = clock.monotonic()
        self._removed_last: Place | None = None  # where the removals of the last look ended
        self._rotations = FailureLog("secret.scheduled_rotation", log)
        self._retirements = FailureLog("secret.retirement", log)
        self._purges = FailureLog("secret.purge", log)

    def report_to(self, meter: WorkerMeter) -> None:
        """Make the meter report for how many endpoints the rotation failed at the last check."""
        meter.watch(definitions.ROTATIONS_FAILING, self.figure)

    def figure(self) -> Reading:
        """Return that number, None if another worker leads."""
        return float(len(self._rotations.standing)) if self._leads() else None

    async def once(self) -> None:
        """Do everything that is due now. A failure of one endpoint or tenant delays no other tenant.

        It delays no other endpoint of its tenant either, but for the third row of it that is locked. Raises
        `Unavailable`; the next look then does the rest.
        """
        await self._unlocked.versions.refresh()
        await self.rotate_due()
        if self._clock.monotonic() >= self._purge_at:
            await self.retire()
            await self.purge()
            await self.remove_leftovers()
            self._purge_at = self._clock.monotonic() + PURGE_EVERY_SECONDS
        elif self._removed_last is not None:
            await self.remove_leftovers()

    async def rotate_due(self) -> None:
        """Announce and make every scheduled rotation that is due. Raises `Unavailable`."""
        await _for_each(
            self._rotations,
            self._leads,
            partial(schedule.upcoming, self._pool),
            schedule.PAGE,
            self._take_turn,
            lambda scheduled: scheduled.turn is not Turn.WAIT,
        )

    async def retire(self) -> None:
        """Retire the previous versions of overlaps that have ended. Raises `Unavailable`."""
        await _for_each(
            self._retirements, self._leads, partial(retention.ended_overlaps, self._pool), retention.PAGE, self._retire
        )

    async def purge(self) -> None:
        """Destroy all retired versions whose retention has ended. Raises `Unavailable`."""
        self._purges.begin()
        for tenant in await retention.tenants(self._pool, days=self._rules.retention_days):
            with self._purges.survived(tenant_id=tenant):
                await self._purge(tenant)
        self._purges.end()

    async def remove_leftovers(self) -> None:
        """Remove at the providers outside PostgreSQL what no version in use needs, for 10 s. Raises `Unavailable`.

        The next call goes on behind the last version that this one tried.
        """
        ends_at = self._clock.monotonic() + REMOVAL_SECONDS
        removal = await remove_leftovers(
            self._pool,
            self._unlocked,
            after=self._removed_last,
            goes_on=lambda: self._leads() and self._clock.monotonic() < ends_at,
        )
        self._removed_last = removal.last
        if removal.removed:
            self._log.info("secret.removed_at_provider", versions=removal.removed)
        if removal.error is not None:
            self._log.warning("secret.removal_failed", reason=with_advice(removal.error))

    async def _take_turn(self, scheduled: Scheduled) -> None:
        turn = None
        async with self._operator() as operator:
            with suppress(NotFound):  # it was deleted meanwhile
                turn = await take_turn(operator, scheduled, overlap_seconds=self._rules.overlap_seconds)
        log = self._log.bind(tenant_id=scheduled.tenant_id, endpoint_id=scheduled.endpoint_id)
        match turn:
            case Announced():
                log.warning(
                    "secret.rotation_announced",
                    generation=turn.generation,
                    secret_ref=turn.secret_ref,
                    rotates_at=turn.rotates_at.isoformat(),
                )
            case RotatedBySchedule():
                log.warning(
                    "secret.rotated_by_schedule",
                    generation=turn.generation,
                    secret_ref=turn.secret_ref,
                    both_sign_until=turn.both_sign_until.isoformat(),
                )
            case None:
                pass
            case _:
                assert_never(turn)

    async def _retire(self, ended: EndedOverlap) -> None:
        async with self._operator() as operator:
            with suppress(NotFound):  # it was deleted meanwhile
                await retire_ended_overlap(operator, ended)

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


class FailureLog:
    """The failures of the last look, each logged when it begins or when its reason changes."""

    def __init__(self, name: str, log: Any) -> None:
        self._name = name
        self._log = log
        self._current: dict[tuple[str, ...], str] = {}
        self._unanswered = 0
        self._locked = Counter[str]()
        self.standing: dict[tuple[str, ...], str] = {}

    def begin(self) -> None:
        """Begin a look."""
        self._current = {}
        self._unanswered = 0
        self._locked.clear()

    def leaves(self, tenant: TenantId) -> bool:
        """Return whether the rest of this tenant is left for the next look: so many of its rows were locked."""
        return self._locked[tenant] >= MOST_LOCKED

    def end(self) -> None:
        """End a complete look: the failures in it are now the standing ones."""
        self.standing = self._current

    @contextmanager
    def survived(self, *, tenant_id: TenantId, **of: str) -> Iterator[None]:
        """Catch and log every exception of the block. After several `Unavailable` in a row, raise the last one.

        A locked row is none of them, because PostgreSQL answers; it counts for its tenant.
        """
        of = {"tenant_id": tenant_id, **of}
        try:
            yield
        except Unavailable as error:
            self._failed(with_advice(error), of, is_defect=False)
            if is_locked(error):
                self._unanswered = 0
                self._locked[tenant_id] += 1
                return
            self._unanswered += 1
            if self._unanswered >= UNANSWERED_IN_A_ROW:
                raise
        except HooksealError as error:
            self._failed(with_advice(error), of, is_defect=False)
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


async def _for_each(
    failures: FailureLog,
    leads: Callable[[], bool],
    read: Callable[[T | None], Awaitable[list[T]]],
    of_page: int,
    act: Callable[[T], Awaitable[None]],
    is_due: Callable[[T], bool] = lambda _endpoint: True,
) -> None:
    """Act on each endpoint that `is_due`: one look, whose failures are in `failures`. Raises `Unavailable`.

    `read` returns the page behind an endpoint, the last one with fewer than `of_page`; none is read unless it `leads`.
    """
    failures.begin()
    page: list[T] = []
    while leads():
        page = await read(page[-1] if page else None)
        for endpoint in page:
            if is_due(endpoint) and not failures.leaves(endpoint.tenant_id):
                with failures.survived(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.endpoint_id):
                    await act(endpoint)
        if len(page) < of_page:
            break
    failures.end()


RETENTION_SECONDS: Final = 60.0
FOLLOW_SECONDS: Final = 3.0  # a new leader begins within this time
EVENTS_SECONDS: Final = 3_600.0  # between two walks through the old events, for each reads all that are still in use
LOG_SECONDS: Final = 60.0


class Retention:
    """Looks once a minute while `leads` is true, and removes batch after batch until nothing is left to remove.

    After each batch it pauses for as long as the batch took: so it uses at most half of the time of one connection,
    however much there is to remove. A batch is one statement: if the worker dies, it is either removed or not, and the
    next leader continues.
    """

    def __init__(
        self,
        history: PostgresHistory,
        leads: Callable[[], bool],
        *,
        days: int,
        clock: Clock,
        meter: WorkerMeter,
        log: Any,
    ) -> None:
        self._history = history
        self._days = days
        self._clock = clock
        self._meter = meter
        self._log = log
        self._pause = RETENTION_SECONDS  # after the last batch
        self.loop = Periodic(
            "retention",
            self.once,
            every=lambda: self._pause,
            leads=leads,
            follow=FOLLOW_SECONDS,
            clock=clock,
            log=log,
        )
        self._deliveries = self._events = OLDEST
        self._events_at = self._log_at = clock.monotonic()
        self._unlogged = Removed()

    async def once(self) -> None:
        """Remove one batch of deliveries and of tokens and, if it is time, one of events, the last with former urls.

        Before that, fill in the endpoint of one batch of attempts that have none, and remove one batch of idempotency
        keys. Raises `Unavailable`.
        """
        self._pause, began_at = RETENTION_SECONDS, self._clock.monotonic()
        unfilled = await self._history.fill_attempts()
        more_keys = await self._history.remove_idempotency_keys()
        removed, deliveries = await self._history.remove_deliveries(self._deliveries, days=self._days)
        self._deliveries = deliveries or OLDEST
        self._count(removed)
        more_tokens = await self._history.remove_tokens()
        more = unfilled or more_keys or more_tokens or deliveries is not None
        if self._clock.monotonic() >= self._events_at:
            more = await self._remove_events() or more
        self._report(more=more)
        if more:
            self._pause = self._clock.monotonic() - began_at

    async def _remove_events(self) -> bool:
        removed, events = await self._history.remove_events(self._events, days=self._days)
        self._events = events or OLDEST
        self._count(removed)
        if events is None:
            self._events_at = self._clock.monotonic() + EVENTS_SECONDS
            await self._history.remove_urls(days=self._days)
        return events is not None

    def _count(self, removed: Removed) -> None:
        self._meter.removed(removed)
        self._unlogged += removed

    def _report(self, *, more: bool) -> None:
        """Log what was removed, at the end and once a minute."""
        if self._unlogged and (not more or self._clock.monotonic() >= self._log_at):
            removed, self._unlogged = self._unlogged, Removed()
            self._log_at = self._clock.monotonic() + LOG_SECONDS
            self._log.info(
                "retention.removed",
                deliveries=removed.deliveries,
                attempts=removed.attempts,
                events=removed.events,
                days=self._days,
            )


STATISTICS_WRITE_SECONDS: Final = 15.0
FORGET_SECONDS: Final = 300.0
_GOODBYE_SECONDS: Final = 1.0


class Statistics:
    """Writes every 15 seconds. What cannot be written is kept, and written when PostgreSQL answers again."""

    def __init__(self, pool: Pool, counts: AttemptCounts, leads: Callable[[], bool], *, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._counts = counts
        self._leads = leads
        self._clock = clock
        self.loop = Periodic(
            "statistics",
            self.once,
            first=STATISTICS_WRITE_SECONDS,
            every=STATISTICS_WRITE_SECONDS,
            clock=clock,
            log=log,
        )
        self._forget_at = clock.monotonic()

    async def once(self) -> None:
        """Write what was counted; delete a batch of old counts if it is time, and this worker leads.

        Raises `Unavailable`.
        """
        await self._write()
        if self._leads():
            await self._forget()

    async def end(self) -> None:
        """Write what was counted last; if PostgreSQL does not answer within a second, it is lost."""
        with self.loop.outage.survived(), translated():
            await at_most(_GOODBYE_SECONDS, self._write())

    async def _forget(self) -> None:
        if self._clock.monotonic() < self._forget_at:
            return
        if await endpoint_queries.forget(self._pool) < endpoint_queries.BATCH:
            self._forget_at = self._clock.monotonic() + FORGET_SECONDS

    async def _write(self) -> None:
        taken = self._counts.take()
        keys = list(taken)
        while keys:
            batch = {key: taken[key] for key in keys[: endpoint_queries.BATCH]}
            try:
                await endpoint_queries.add(self._pool, batch)
            except Unavailable:
                self._counts.put_back({key: taken[key] for key in keys})
                raise
            del keys[: endpoint_queries.BATCH]


HEALTH_WRITE_SECONDS: Final = 5.0
DISABLE_SECONDS: Final = 60.0


class HealthReports:
    """Writes every five seconds which endpoints this worker found failing or recovered."""

    def __init__(self, pool: Pool, failing: FailingEndpoints, *, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._failing = failing
        self._log = log
        self.loop = Periodic("endpoint_health", self.once, every=HEALTH_WRITE_SECONDS, clock=clock, log=log)

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
        self._meter = meter
        self._log = log
        self.loop = Periodic("disabling", self.once, every=DISABLE_SECONDS, clock=clock, log=log)
        self._failures = FailureLog("endpoint.disabling", log)

    async def once(self) -> None:
        """Disable every endpoint for which it is time, unless another worker leads. Raises `Unavailable`."""
        read = partial(failing_too_long, self._pool, after_seconds=self._after_seconds)
        await _for_each(self._failures, self._leads, read, BATCH, self._disable)

    async def _disable(self, failing: Failing) -> None:
        async with connected(self._pool) as connection:
            operator = Operator(connection=connection, unlocked=self._unlocked, who=self._who)
            reason = await disable_failing_endpoint(operator, failing, after_seconds=self._after_seconds)
        if reason is not None:
            self._meter.disabled()
            self._log.warning(
                "endpoint.disabled", tenant_id=failing.tenant_id, endpoint_id=failing.endpoint_id, reason=reason
            )
