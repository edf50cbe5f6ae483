"""A ledger that records outcomes in batches, and retries while their leases may still be valid."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from itertools import count
from typing import Final, TypeVar

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from hookseal.dispatcher.model import Attempt, Claim, Claimed, FinishedAttempt, Recorded, Ring, State, Verdict
from hookseal.dispatcher.policy import Wait
from hookseal.dispatcher.ports import BatchedLedger
from hookseal.ground.batches import Batch, Batches, Uncancellable, resolve, resolve_left
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable
from hookseal.ground.retrying import retried

ALONE_AT_ONCE: Final = 4  # statements for one delivery, of those that do not wait for the next batch

T = TypeVar("T")
Outcome = tuple[FinishedAttempt, "asyncio.Future[Verdict | None]"]
Timed = tuple[Outcome, float]  # an outcome, and until when its record is retried


class PersistentLedger:
    """A `Ledger` over another one: claims fail at once, and writes, which stay fenced, are retried for `seconds`.

    A batch of outcomes is retried until `seconds` after the call of `record` for its last one. A batch that begins
    later is tried once; but it is not tried if PostgreSQL has not answered another batch since then.

    `new_token` returns a new UUID. `lost` is called with the token of a claim whose answer did not arrive: the
    database may have made the claim. `stored` is called with each attempt that was recorded.
    """

    def __init__(
        self,
        ledger: BatchedLedger,
        *,
        seconds: float,
        clock: Clock,
        new_token: Callable[[], str],
        lost: Callable[[str], None],
        stored: Callable[[FinishedAttempt], None] = lambda _made: None,
    ) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._clock = clock
        self._new_token = new_token
        self._lost = lost
        self._stored = stored
        self._outcomes: Batches[tuple[FinishedAttempt, float], Verdict | None] = Batches(
            self._record_all, Uncancellable
        )
        self._alone: dict[tuple[str, str], deque[Timed]] = {}
        self._turns = asyncio.Semaphore(ALONE_AT_ONCE)
        self._failed_at = float("-inf")  # when a batch failed because PostgreSQL did not answer, if it has not since
        self._recording: set[asyncio.Task[None]] = set()

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies.

        If one cannot be read, the rings are halved until it is found; the others are claimed. Raises `Unavailable`.
        """
        token = token or self._new_token()
        try:
            return await self._ledger.claim_all(rings, token, most_bytes=most_bytes)
        except (Unavailable, asyncio.CancelledError):
            self._lost(token)
            raise
        except Exception as error:  # noqa: BLE001 -- the caller reports it
            if len(rings) == 1:  # if it has a lease now, the lease expires, so that it is not tried again before
                return Claimed(claims=[], busy=[], faulty=[(rings[0], error)])
        return await self._claim_by_halves(rings, token, most_bytes)

    async def _claim_by_halves(self, rings: Sequence[Ring], token: str, most_bytes: int) -> Claimed:
        """Claim them in two statements, after giving back what the database may have claimed under this token."""
        try:
            await self._ledger.give_back([token])
        except (Unavailable, asyncio.CancelledError):
            self._lost(token)
            raise
        middle = len(rings) // 2
        first = await self.claim_all(rings[:middle], most_bytes=most_bytes)
        room = most_bytes - sum(len(each.body) for each in first.claims)
        try:
            second = await self.claim_all(rings[middle:], most_bytes=room)
        except Unavailable:  # the claims of the first half are sent
            second = Claimed(claims=[], busy=list(rings[middle:]))
        except asyncio.CancelledError:
            for each in {claim.lease_token for claim in first.claims}:
                self._lost(each)
            raise
        return Claimed(
            claims=first.claims + second.claims,
            busy=first.busy + second.busy,
            locked=first.locked + second.locked,
            behind=first.behind + second.behind,
            faulty=first.faulty + second.faulty,
        )

    def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Awaitable[Verdict | None]:
        """Record the attempt and apply the verdict, in one statement with others; return the verdict that was applied.

        Returns None if the lease was lost. When this returns the attempt is in a batch; it is recorded even if the
        result is not awaited. A cancellation while it is awaited is raised once the attempt is recorded, or could not
        be.
        """
        made = FinishedAttempt(claim=claim, attempt=attempt, verdict=verdict, error=error)
        return self._outcomes.add((made, self._deadline()))

    def _report(self, made: Sequence[FinishedAttempt]) -> None:
        """Report these as recorded, in a call of the event loop of its own: an error then concerns no outcome."""
        if made:
            asyncio.get_running_loop().call_soon(self._report_now, made)

    def _report_now(self, made: Sequence[FinishedAttempt]) -> None:
        for place, each in enumerate(made, start=1):
            try:
                self._stored(each)
            except Exception:
                self._report(made[place:])
                raise

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt."""
        return await self._retried_alone(lambda _: self._ledger.release(claim, wait), self._deadline())

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt."""
        return await self._retried_alone(lambda _: self._ledger.end(claim, state, error), self._deadline())

    async def _record_all(self, batch: Batch[tuple[FinishedAttempt, float], Verdict | None]) -> None:
        """Record them in one statement, except those that change their endpoint: its row may be locked for long."""
        deadline = batch[-1][0][1]
        if deadline <= self._failed_at:
            for _, future in batch:
                resolve(future, Unavailable("PostgreSQL did not answer in time"))
            return
        together = list[Outcome]()
        for (made, _), future in batch:
            if _changes_its_endpoint(made):
                self._record_alone((made, future))
            else:
                together.append((made, future))
        if together:
            await self._record_together(together, deadline)

    async def _record_together(self, outcomes: Sequence[Outcome], deadline: float) -> None:
        """Record them, and set the result of each. If PostgreSQL refuses one, the batch is halved until it is found."""
        made = [each for each, _ in outcomes]
        try:
            results = await self._retried(lambda is_repeat: self._recorded(made, is_repeat=is_repeat), deadline)
        except asyncpg.PostgresError as error:
            if len(outcomes) == 1:
                if isinstance(error, asyncpg.UniqueViolationError):  # another program has just inserted this attempt
                    self._record_alone(outcomes[0])
                else:
                    resolve(outcomes[0][1], error)
                return
            middle = len(outcomes) // 2
            await self._record_together(outcomes[:middle], deadline)
            await self._record_together(outcomes[middle:], deadline)
        except Exception as error:  # noqa: BLE001 -- the caller reports it
            if isinstance(error, Unavailable):
                self._failed_at = self._clock.monotonic()
            for _, future in outcomes:
                resolve(future, error)
        else:
            self._failed_at = float("-inf")
            self._answer(outcomes, results)

    def _answer(self, outcomes: Sequence[Outcome], results: Sequence[Recorded]) -> None:
        """Set the result of each. One whose row is busy is recorded later, within `seconds` from now."""
        for each, result in zip(outcomes, results, strict=True):
            if result is Recorded.BUSY:
                deadline = self._deadline()
                self._begin(self._record_once_unlocked(each, deadline), [(each, deadline)])
            else:
                resolve(each[1], each[0].verdict if result is Recorded.STORED else None)
        self._report([made for (made, _), result in zip(outcomes, results, strict=True) if result is Recorded.STORED])

    async def _recorded(
        self, made: Sequence[FinishedAttempt], *, is_repeat: bool, again: bool = False
    ) -> list[Recorded]:
        """Record them. In a repeat, a lease may be gone because the first try has recorded the attempt."""
        results = await self._ledger.record_all(made, again=again)
        if not is_repeat or Recorded.LEASE_LOST not in results:
            return results
        lost = [each for each, result in zip(made, results, strict=True) if result is Recorded.LEASE_LOST]
        recorded = await self._ledger.recorded(lost)
        return [
            Recorded.STORED if each.claim.ring.delivery_id in recorded else result
            for each, result in zip(made, results, strict=True)
        ]

    async def _record_once_unlocked(self, outcome: Outcome, deadline: float) -> None:
        """Record it once its row is not locked. It retries with pauses, so that no connection waits for the lock."""
        made = outcome[0]

        async def write(is_repeat: bool) -> Verdict | None:  # noqa: FBT001 -- `_retried` passes it
            [result] = await self._recorded([made], is_repeat=is_repeat, again=True)
            if result is Recorded.BUSY:
                raise Unavailable("another transaction has locked the row of the delivery, or keeps changing it")
            return made.verdict if result is Recorded.STORED else None

        await self._write_and_resolve(outcome, write, deadline)

    def _record_alone(self, outcome: Outcome) -> None:
        """Record it alone, after the others of its endpoint: only one statement at a time waits for the row."""
        endpoint = (outcome[0].claim.ring.tenant_id, outcome[0].claim.ring.endpoint_id)
        waiting = self._alone.get(endpoint)
        if waiting is None:
            waiting = self._alone[endpoint] = deque()
            task = self._begin(self._record_in_turn(endpoint, waiting), waiting)
            task.add_done_callback(lambda _: self._alone.get(endpoint) is waiting and self._alone.pop(endpoint))
        waiting.append((outcome, self._deadline()))

    async def _record_in_turn(self, endpoint: tuple[str, str], waiting: deque[Timed]) -> None:
        while waiting:
            await self._record_one(*waiting[0])
            waiting.popleft()
        del self._alone[endpoint]

    async def _record_one(self, outcome: Outcome, deadline: float) -> None:
        made = outcome[0]

        async def write(is_repeat: bool) -> Verdict | None:  # noqa: FBT001 -- `_retried` passes it
            done = await self._ledger.record(made.claim, made.attempt, made.verdict, made.error)
            if done is None and is_repeat and await self._ledger.recorded([made]):
                return made.verdict  # the first try has recorded it, and only its answer was lost
            return done

        await self._write_and_resolve(outcome, write, deadline)

    async def _write_and_resolve(
        self, outcome: Outcome, write: Callable[[bool], Awaitable[Verdict | None]], deadline: float
    ) -> None:
        try:
            resolve(outcome[1], applied := await self._retried_alone(write, deadline))
            self._report([] if applied is None else [outcome[0]])
        except Exception as error:  # noqa: BLE001 -- the caller reports it
            resolve(outcome[1], error)

    def _begin(self, recording: Coroutine[object, object, None], left: Iterable[Timed]) -> "asyncio.Future[None]":
        """Begin to record these. If the task fails or is cancelled, those that are left then are resolved."""
        task = asyncio.ensure_future(recording)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        task.add_done_callback(lambda ended: resolve_left(ended, [each for each, _ in left]))
        return task

    def _deadline(self) -> float:
        return self._clock.monotonic() + self._seconds

    async def _retried_alone(self, write: Callable[[bool], Awaitable[T]], deadline: float) -> T:
        """Retry a statement for one delivery. Few of these run at once, because each may wait for a lock."""

        async def in_turn(is_repeat: bool) -> T:  # noqa: FBT001 -- `_retried` passes it
            async with self._turns:
                if not is_repeat and self._clock.monotonic() >= deadline:  # the statements before it took too long
                    raise Unavailable("PostgreSQL did not answer in time")
                return await write(is_repeat)

        return await self._retried(in_turn, deadline)

    async def _retried(self, write: Callable[[bool], Awaitable[T]], deadline: float) -> T:
        """Return the result of `write`; retry while PostgreSQL is unavailable. Its argument says if it is a repeat."""
        tries = count(1)
        return await retried(
            lambda: write(next(tries) > 1),
            on=Unavailable,
            retrying=lambda: AsyncRetrying(
                sleep=self._clock.sleep,
                retry=retry_if_exception_type(Unavailable),
                stop=lambda _state: self._clock.monotonic() >= deadline,  # stop_after_delay has a clock of its own
                wait=wait_random_exponential(multiplier=0.1, max=2.0),
                reraise=True,
            ),
        )


def _changes_its_endpoint(made: FinishedAttempt) -> bool:
    """Return whether it disables its endpoint, or is the probe after which the endpoint is released."""
    return made.verdict.disable is not None or made.claim.is_probe is True
