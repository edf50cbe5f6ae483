"""Keeps an outcome in memory until it is on record, and sends nothing new while none can be recorded."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final, TypeVar

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from hookseal.dispatcher.core.model import Attempt, Claim, FinishedAttempt, Recorded, State, Verdict
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.core.ports import BatchedLedger
from hookseal.dispatcher.store.ledger import refusal
from hookseal.errors import OutcomeKept, Unavailable, with_advice
from hookseal.ground.batches import Batch, Batches, Uncancellable, resolve, resolve_left
from hookseal.ground.clock import Clock, retried
from hookseal.worker.periodic import Outage, Periodic

ALONE_AT_ONCE: Final = 4  # statements for one delivery, of those that do not wait for the next batch
PATIENCE_SECONDS: Final = 2.0  # how long an outcome may wait for its record before nothing more is begun
LONGEST_PAUSE_SECONDS: Final = 2.0  # between two tries of a write
LOOK_SECONDS: Final = 0.5  # between two looks whether leases are to be prolonged

T = TypeVar("T")
Outcome = tuple[FinishedAttempt, "asyncio.Future[Verdict | None]"]


def stamp(moment: datetime) -> str:
    """Return the moment as the probes write it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


class Circuit:
    """Knows the outcomes that are not on record yet, and whether this worker can record. Pure.

    It is open from when an outcome could not be recorded, or nothing was recorded for `PATIENCE_SECONDS` while one
    waited, until one is recorded. While it is open, nothing is to be claimed or sent. An outcome that waits alone,
    because another transaction has locked the row of its delivery or endpoint, does not open it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._together: dict[Hashable, float] = {}  # since when each waits, the oldest first
        self._alone: dict[Hashable, float] = {}
        self._recorded_at = float("-inf")
        self._failure: str | None = None  # of the last try, if it failed
        self.failures = 0
        self.refused: dict[str, str | int] | None = None  # the `report` about outcomes that were refused and are kept

    def waits(self, outcome: Hashable) -> None:
        """Notice that this outcome is known and not on record."""
        self._together[outcome] = self._clock.monotonic()

    def waits_alone(self, outcome: Hashable) -> None:
        """Notice that this outcome waits for a row that another transaction may have locked."""
        if (since := self._together.pop(outcome, None)) is not None:
            self._alone[outcome] = since

    def ended(self, outcome: Hashable) -> None:
        """Forget an outcome: it is on record, or given up."""
        if self._together.pop(outcome, None) is None:
            self._alone.pop(outcome, None)

    def answered(self) -> None:
        """Notice that PostgreSQL has answered a record."""
        self._failure = None
        self._recorded_at = self._clock.monotonic()

    def failed(self, reason: str) -> None:
        """Notice that an outcome could not be recorded, for a reason that concerns all."""
        self._failure = reason
        self.failures += 1

    @property
    def is_open(self) -> bool:
        """Whether nothing may be claimed or sent now."""
        if self._failure is not None:  # without an outcome no record will show that it works again: the next one does
            return bool(self._together or self._alone)
        return bool(self._together) and self._waited >= PATIENCE_SECONDS

    @property
    def tries_together(self) -> bool:
        """Whether a batch waits, so that its record shows whether it works again."""
        return bool(self._together)

    @property
    def reason(self) -> str:
        """Why the circuit is open."""
        return self._failure or f"PostgreSQL has not answered a record for {self._waited:.0f} s"

    def report(self) -> dict[str, str | int] | None:
        """Return since when and why nothing is recorded, and how many outcomes wait: None unless the circuit is open.

        If it is closed, the same of the outcomes that PostgreSQL refused, if there are any. No value is secret: the
        reason names the class of an error and has none of its text.
        """
        if not self.is_open:
            return self.refused
        since = self._clock.now() - timedelta(seconds=self.oldest_seconds)
        return {"since": stamp(since), "outcomes": self.unrecorded, "reason": self.reason}

    @property
    def unrecorded(self) -> int:
        """How many outcomes are known and not on record."""
        return len(self._together) + len(self._alone)

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest of them has waited; 0 if there is none."""
        if not (self._together or self._alone):
            return 0.0
        now = self._clock.monotonic()
        return now - min(next(iter(self._together.values()), now), *self._alone.values(), now)

    @property
    def is_late(self) -> bool:
        """Whether an outcome has waited for `PATIENCE_SECONDS`: then the leases of this worker must be kept."""
        return self.oldest_seconds >= PATIENCE_SECONDS

    @property
    def _waited(self) -> float:
        oldest = next(iter(self._together.values()), self._clock.monotonic())
        return self._clock.monotonic() - max(oldest, self._recorded_at)


class _RowLockedError(Unavailable):
    """Another transaction has locked the row of the delivery, or keeps changing it."""


# What a statement that waits for a lock ends with: our time limit, or one of the role. A dead server is silent, too.
_WAITED: Final = (TimeoutError, asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)


@contextmanager
def _faults_of_all() -> Iterator[None]:
    """Make an error for which no outcome is at fault `Unavailable`: a missing right or column, a damaged table."""
    try:
        yield
    except (asyncpg.SyntaxOrAccessError, asyncpg.InternalServerError) as error:
        raise Unavailable(f"PostgreSQL refuses every record ({type(error).__name__})") from None


class _Result(Uncancellable[Any]):
    """The result of an outcome, which the circuit knows until it is resolved."""

    def __init__(self, circuit: Circuit) -> None:
        super().__init__()
        self._circuit = circuit
        circuit.waits(self)

    def set_result(self, result: object) -> None:
        self._circuit.ended(self)
        super().set_result(result)

    def set_exception(self, exception: type[BaseException] | BaseException) -> None:
        self._circuit.ended(self)
        super().set_exception(exception)


class PersistentLedger:
    """A `Ledger` over another one, which repeats every write, still fenced, until it succeeds.

    So an outcome that is known stays in memory until it is on record, or its lease is found to be lost, however long
    that takes. While the `circuit` is open, one record at a time is tried, each at most `LONGEST_PAUSE_SECONDS` after
    it failed. Only `give_up_after`, when the process ends, sets a limit. What begins later than that is tried once; but
    it is not tried if PostgreSQL has not answered another one since then.

    An outcome that PostgreSQL refuses, as a constraint or a trigger of others on `deliveries` or `attempts` does, is
    kept in a table of its own, and costs no other (`OutcomeKept`).

    `stored` is called with each attempt that was recorded or kept, and `measured` with the seconds of each try to
    record some together, and their number.
    """

    def __init__(
        self,
        ledger: BatchedLedger,
        *,
        clock: Clock,
        stored: Callable[[FinishedAttempt], None] = lambda _made: None,
        measured: Callable[[float, int], object] = lambda _seconds, _outcomes: None,
        circuit: Circuit | None = None,
    ) -> None:
        self.circuit = circuit or Circuit(clock)
        self._ledger = ledger
        self._clock = clock
        self._stored = stored
        self._measured = measured
        self._outcomes: Batches[FinishedAttempt, Verdict | None] = Batches(
            self._record_all, lambda: _Result(self.circuit)
        )
        self._alone: dict[tuple[str, str], deque[Outcome]] = {}
        self._turns = asyncio.Semaphore(ALONE_AT_ONCE)
        self._trial = asyncio.Lock()
        self._gives_up_at = float("inf")
        # Whether the last batch, or the last statement for one delivery, was given up. The next one is not tried then.
        self._has_given_up = self._has_given_up_alone = False
        self._recording: set[asyncio.Task[None]] = set()

    def give_up_after(self, seconds: float) -> None:
        """Repeat no write that fails later than `seconds` from now: it raises `Unavailable`, and its lease expires."""
        self._gives_up_at = self._clock.monotonic() + seconds

    def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Awaitable[Verdict | None]:
        """Record the attempt and apply the verdict, in one statement with others; return the verdict that was applied.

        Returns None if the lease was lost. When this returns the attempt is in a batch; it is recorded even if the
        result is not awaited. A cancellation while it is awaited is raised once the attempt is recorded, or could not
        be.
        """
        return self._outcomes.add(FinishedAttempt(claim=claim, attempt=attempt, verdict=verdict, error=error))

    def _report(self, finished: Sequence[FinishedAttempt]) -> None:
        """Report these as recorded, in a call of the event loop of its own: an error then concerns no outcome."""
        if finished:
            asyncio.get_running_loop().call_soon(self._report_now, finished)

    def _report_now(self, finished: Sequence[FinishedAttempt]) -> None:
        for number, each in enumerate(finished, start=1):
            try:
                self._stored(each)
            except Exception:
                self._report(finished[number:])
                raise

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt."""
        return await self._retried_alone(lambda _: self._ledger.release(claim, wait))

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt."""
        return await self._retried_alone(lambda _: self._ledger.end(claim, state, error))

    async def _record_all(self, batch: Batch[FinishedAttempt, Verdict | None]) -> None:
        """Record them in one statement, except those that change their endpoint: its row may be locked for long."""
        if self._has_given_up:
            for _, future in batch:
                resolve(future, Unavailable("PostgreSQL did not answer in time"))
            return
        together = list[Outcome]()
        for each in batch:
            if _changes_its_endpoint(each[0]):
                self._record_alone(each)
            else:
                together.append(each)
        if together:
            await self._record_together(together)

    async def _record_together(self, outcomes: Sequence[Outcome]) -> None:
        """Record them, and set the result of each. If PostgreSQL refuses one, the batch is halved until it is found."""
        finished = [each for each, _ in outcomes]

        async def write(is_repeat: bool) -> list[Recorded]:  # noqa: FBT001 -- `_retried` passes it
            with _faults_of_all():
                return await self._recorded(finished, is_repeat=is_repeat)

        async def tried(is_repeat: bool) -> list[Recorded]:  # noqa: FBT001 -- `_retried` passes it
            try:
                return await self._one_at_a_time(write, is_repeat=is_repeat)
            except Unavailable as error:
                self.circuit.failed(with_advice(error))
                raise

        try:
            results = await self._retried(tried)
        except asyncpg.PostgresError as error:
            self.circuit.answered()
            if len(outcomes) == 1:
                if isinstance(error, asyncpg.UniqueViolationError):  # another program has just inserted this attempt
                    self._record_alone(outcomes[0])
                else:
                    self.circuit.waits_alone(outcomes[0][1])
                    self._begin(self._keep(outcomes[0], error), outcomes)
                return
            middle = len(outcomes) // 2
            await self._record_together(outcomes[:middle])
            await self._record_together(outcomes[middle:])
        except Exception as error:  # noqa: BLE001 -- the caller reports it
            self._has_given_up = isinstance(error, Unavailable)
            for _, future in outcomes:
                resolve(future, error)
        else:
            self._has_given_up = False
            self.circuit.answered()
            self._answer(outcomes, results)

    def _answer(self, outcomes: Sequence[Outcome], results: Sequence[Recorded]) -> None:
        """Set the result of each. One whose row is busy is recorded later, alone."""
        for each, result in zip(outcomes, results, strict=True):
            if result is Recorded.BUSY:
                self.circuit.waits_alone(each[1])
                self._begin(self._record_once_unlocked(each), [each])
            else:
                resolve(each[1], each[0].verdict if result is Recorded.STORED else None)
        self._report(
            [finished for (finished, _), result in zip(outcomes, results, strict=True) if result is Recorded.STORED]
        )

    async def _recorded(
        self, finished: Sequence[FinishedAttempt], *, is_repeat: bool, again: bool = False
    ) -> list[Recorded]:
        """Record them. In a repeat, a lease may be gone because the first try has recorded the attempt."""
        began_at = self._clock.monotonic()
        try:
            results = await self._ledger.record_all(finished, again=again)
        finally:
            self._measured(self._clock.monotonic() - began_at, len(finished))
        if not is_repeat or Recorded.LEASE_LOST not in results:
            return results
        lost = [each for each, result in zip(finished, results, strict=True) if result is Recorded.LEASE_LOST]
        recorded = await self._ledger.recorded(lost)
        return [
            Recorded.STORED if each.claim.ring.delivery_id in recorded else result
            for each, result in zip(finished, results, strict=True)
        ]

    async def _record_once_unlocked(self, outcome: Outcome) -> None:
        """Record it once its row is not locked. It retries with pauses, so that no connection waits for the lock."""
        finished = outcome[0]

        async def write(is_repeat: bool) -> Verdict | None:  # noqa: FBT001 -- `_retried` passes it
            [result] = await self._recorded([finished], is_repeat=is_repeat, again=True)
            if result is Recorded.BUSY:
                raise _RowLockedError
            return finished.verdict if result is Recorded.STORED else None

        await self._write_and_resolve(outcome, write)

    def _record_alone(self, outcome: Outcome) -> None:
        """Record it alone, after the others of its endpoint: only one statement at a time waits for the row."""
        self.circuit.waits_alone(outcome[1])
        endpoint = (outcome[0].claim.ring.tenant_id, outcome[0].claim.ring.endpoint_id)
        waiting = self._alone.get(endpoint)
        if waiting is None:
            waiting = self._alone[endpoint] = deque()
            task = self._begin(self._record_in_turn(endpoint, waiting), waiting)
            task.add_done_callback(lambda _: self._alone.get(endpoint) is waiting and self._alone.pop(endpoint))
        waiting.append(outcome)

    async def _record_in_turn(self, endpoint: tuple[str, str], waiting: deque[Outcome]) -> None:
        while waiting:
            await self._record_one(waiting[0])
            waiting.popleft()
        del self._alone[endpoint]

    async def _record_one(self, outcome: Outcome) -> None:
        finished = outcome[0]

        async def write(is_repeat: bool) -> Verdict | None:  # noqa: FBT001 -- `_retried` passes it
            applied = await self._ledger.record(finished.claim, finished.attempt, finished.verdict, finished.error)
            if applied is None and is_repeat and await self._ledger.recorded([finished]):
                return finished.verdict  # the first try has recorded it, and only its answer was lost
            return applied

        await self._write_and_resolve(outcome, write)

    async def _keep(self, outcome: Outcome, refused: asyncpg.PostgresError) -> None:
        """Keep an outcome that PostgreSQL refuses, beside the tables that refuse it; its result is `OutcomeKept`."""
        reason = refusal(refused)

        async def write(_is_repeat: bool) -> Verdict | None:  # noqa: FBT001 -- `_retried` passes it
            try:
                has_lease = await self._ledger.keep(outcome[0], reason)
            except asyncpg.DataError:  # hookseal has made a value that no table takes
                raise refused from None
            except asyncpg.PostgresError as error:
                raise Unavailable(f"PostgreSQL refuses an outcome, and to keep it ({refusal(error)})") from None
            if has_lease:
                raise OutcomeKept(reason)
            return None

        await self._write_and_resolve(outcome, write, keeps=False)

    async def _write_and_resolve(
        self, outcome: Outcome, write: Callable[[bool], Awaitable[Verdict | None]], *, keeps: bool = True
    ) -> None:
        async def tried(is_repeat: bool) -> Verdict | None:  # noqa: FBT001 -- `_retried` passes it
            if self.circuit.is_open and self.circuit.tries_together:  # the next batch shows whether it works again
                raise Unavailable(self.circuit.reason)
            try:
                with _faults_of_all():
                    return await self._one_at_a_time(write, is_repeat=is_repeat)
            except Unavailable as error:
                if not await self._waits_for_a_row(error):
                    self.circuit.failed(with_advice(error))
                raise

        try:
            applied = await self._retried_alone(tried)
            self.circuit.answered()
            resolve(outcome[1], applied)
            self._report([] if applied is None else [outcome[0]])
        except Exception as error:  # noqa: BLE001 -- the caller reports it
            if keeps and isinstance(error, asyncpg.PostgresError):
                await self._keep(outcome, error)
                return
            if isinstance(error, OutcomeKept):
                self._report([outcome[0]])
            resolve(outcome[1], error)

    async def _waits_for_a_row(self, error: Unavailable) -> bool:
        """Return whether a record failed only since another transaction has locked its row, which no other needs."""
        if isinstance(error, _RowLockedError):
            return True
        if not isinstance(error.__context__, _WAITED):
            return False
        try:
            return not await self._ledger.are_tables_locked()
        except Unavailable:
            return False

    def _begin(self, recording: Coroutine[object, object, None], outcomes: Iterable[Outcome]) -> "asyncio.Future[None]":
        """Begin to record these. If the task fails or is cancelled, the `outcomes` that are left then are resolved."""
        task = asyncio.ensure_future(recording)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        task.add_done_callback(lambda ended: resolve_left(ended, outcomes))
        return task

    @property
    def _gives_up(self) -> bool:
        return self._clock.monotonic() >= self._gives_up_at

    async def _one_at_a_time(self, write: Callable[[bool], Awaitable[T]], *, is_repeat: bool) -> T:
        """Try a record: at once, or if the circuit is open after those that are being tried."""
        if not self.circuit.is_open:
            return await write(is_repeat)
        async with self._trial:
            if self._has_given_up:
                raise Unavailable(self.circuit.reason)
            return await write(is_repeat)

    async def _retried_alone(self, write: Callable[[bool], Awaitable[T]]) -> T:
        """Repeat a statement for one delivery. Few of these run at once, because each may wait for a lock."""

        async def in_turn(is_repeat: bool) -> T:  # noqa: FBT001 -- `_retried` passes it
            async with self._turns:
                if self._has_given_up_alone:
                    raise Unavailable("PostgreSQL did not answer in time")
                return await write(is_repeat)

        try:
            result = await self._retried(in_turn)
        except Unavailable:
            self._has_given_up_alone = True
            raise
        self._has_given_up_alone = False
        return result

    async def _retried(self, write: Callable[[bool], Awaitable[T]]) -> T:
        """Return the result of `write`; repeat it while that is `Unavailable`. Its argument says if it is a repeat."""
        tries = count(1)
        return await retried(
            lambda: write(next(tries) > 1),
            on=Unavailable,
            retrying=lambda: AsyncRetrying(
                sleep=self._clock.sleep,
                retry=retry_if_exception_type(Unavailable),
                stop=lambda _state: self._gives_up,
                wait=wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_SECONDS),
                reraise=True,
            ),
        )


class KeptLeases:
    """Keeps the leases of a worker while outcomes wait for their record, and logs when records fail and work again.

    `prolong` prolongs the lease of all that this worker has claimed, for `lease_seconds` from now. `announce` tells the
    other workers at once that an outcome waits; later heartbeats repeat it.
    """

    def __init__(
        self,
        circuit: Circuit,
        prolong: Callable[[], Awaitable[int]],
        *,
        lease_seconds: float,
        clock: Clock,
        log: Any,
        announce: Callable[[], Awaitable[object]],
    ) -> None:
        self._circuit = circuit
        self._prolong = prolong
        self._announce = announce
        self._is_announced = False
        self._between = lease_seconds / 4
        self._clock = clock
        self._log = log
        self._outage = Outage("leases", log)
        self.loop = Periodic("kept_leases", self.once, every=LOOK_SECONDS, clock=clock, log=log)
        self._prolong_at = float("-inf")
        self._opened_at: float | None = None

    async def once(self) -> None:
        """Log what has changed, and prolong the leases if an outcome waits and they were not prolonged lately.

        A failure that is over within two seconds is counted, and not logged.
        """
        self._log_change()
        now = self._clock.monotonic()
        if not self._circuit.is_late:
            self._outage.over()
            self._is_announced = False
            return
        if not self._is_announced:
            with self._outage.survived():
                await self._announce()
                self._is_announced = True
        if now >= self._prolong_at:
            with self._outage.survived():
                await self._prolong()
                self._prolong_at = now + self._between

    def _log_change(self) -> None:
        if self._circuit.is_open and self._circuit.is_late and self._opened_at is None:
            self._opened_at = self._clock.monotonic()
            self._log.error("records.failed", unrecorded=self._circuit.unrecorded, reason=self._circuit.reason)
        elif self._opened_at is not None and not self._circuit.is_open:
            seconds = round(self._clock.monotonic() - self._opened_at, 1)
            self._log.info("records.resumed", seconds=seconds, unrecorded=self._circuit.unrecorded)
            self._opened_at = None


def _changes_its_endpoint(finished: FinishedAttempt) -> bool:
    """Return whether it disables its endpoint, or is the probe after which the endpoint is released."""
    return finished.verdict.disable is not None or finished.claim.is_probe is True
