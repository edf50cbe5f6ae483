"""The leader executes replay jobs: each look takes one step of every running job, or more if its rate allows."""

from collections.abc import Callable
from typing import Any, Final

from hookseal.dispatcher.core.replay_job import JobState
from hookseal.dispatcher.store import replays
from hookseal.dispatcher.store.ledger import Chore
from hookseal.dispatcher.store.replays import LOCK_WAIT, RunningJob, Step
from hookseal.errors import HooksealError, with_advice
from hookseal.ground.clock import Clock
from hookseal.operations.operator import Operator
from hookseal.operations.replay import take_step
from hookseal.postgres.pool import Connection, Pool, connected
from hookseal.worker.chores import Leader
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.periodic import Periodic

LOOK_SECONDS: Final = 1.0
LOGGED_SECONDS: Final = 60.0
MOST_JOBS: Final = 100  # that did not fail at their last step, in one look
LOST_SECONDS: Final = 0.3  # once the steps that fail have taken so long in a look, no job that failed is tried again
SHORT_WAIT: Final = 0.01  # seconds for which a step waits for a lock from then on, in this look


class Replaying:
    """Looks every second while this worker leads, unless the leader knows that no job runs.

    A step is one transaction, which makes deliveries due and moves the job behind them. So if the leader dies, the next
    one continues where it ended, and no delivery is replayed twice or left out.
    """

    def __init__(
        self,
        pool: Pool,
        as_operator: Callable[[Connection], Operator],
        leader: Leader,
        *,
        clock: Clock,
        meter: WorkerMeter,
        log: Any,
    ) -> None:
        self._pool = pool
        self._as_operator = as_operator
        self._leader = leader
        self._clock = clock
        self._meter = meter
        self._log = log
        self.loop = Periodic(
            "replaying",
            self.once,
            every=self._pause,
            leads=lambda: leader.leads and leader.may_have(Chore.REPLAYS),
            follow=LOOK_SECONDS,
            clock=clock,
            log=log,
        )
        self._log_at: dict[RunningJob, float] = {}
        self._failures: dict[RunningJob, str] = {}  # why a job failed at its last step; last tried, last here
        self._lost_seconds = 0.0  # which the steps of this look took that failed
        self._try_at = 0.0  # when jobs that failed may be tried again

    async def once(self) -> bool:
        """Take a step of each running job; return whether one of them may go on at once.

        A job that waits for a lock delays no other for long; the reason is logged once. A step waits at most
        `LOCK_WAIT` seconds for each lock. Jobs that failed at their last step come after the others, the one first that
        was tried least recently. None of them begins once the steps that fail have taken `LOST_SECONDS` in this look:
        so they take at most 0.6 s if each waits for one lock. Then they pause for as long as they took. Which jobs fail
        for the first time is not known before: after `LOST_SECONDS` each of them waits only `SHORT_WAIT`. Raises
        `Unavailable` if the jobs cannot be read.
        """
        self._lost_seconds = 0.0
        jobs = await replays.running(self._pool, at_most=MOST_JOBS, but=self._failures)
        self._forget_all_but(jobs)
        steps = [await self._step(job) for job in jobs if self._leader.leads]
        tried = set(jobs)
        steps += await self._try_again([job for job in self._failures if job not in tried])
        return any(step is not None and step.may_go_on for step in steps)

    def _pause(self) -> float:
        """Return the pause until the next look, less the time that failing jobs took in this one."""
        return max(LOOK_SECONDS - self._lost_seconds, 0.0)

    async def _try_again(self, failed: list[RunningJob]) -> list[Step | None]:
        """Take a step of the jobs that failed before this look, the one first that was tried least recently."""
        began = self._clock.monotonic()
        if began < self._try_at:
            return []
        steps = []
        for job in failed:
            if self._lost_seconds >= LOST_SECONDS or not self._leader.leads:
                break
            steps.append(await self._step(job))
        ended = self._clock.monotonic()
        self._try_at = ended + (ended - began)
        return steps

    async def _step(self, job: RunningJob) -> Step | None:
        log = self._log.bind(tenant_id=job.tenant_id, replay_id=job.replay_id)
        lock_wait = LOCK_WAIT if self._lost_seconds < LOST_SECONDS else SHORT_WAIT
        began = self._clock.monotonic()
        try:
            async with connected(self._pool) as connection:
                step = await take_step(self._as_operator(connection), job, lock_wait=lock_wait)
        except HooksealError as error:
            if self._fails(job, with_advice(error), since=began):
                log.warning("replay.failed", reason=with_advice(error))
            return None
        except Exception as error:
            if self._fails(job, type(error).__name__, since=began):
                log.exception("replay.defect")
            return None
        self._failures.pop(job, None)
        if step is not None:
            self._meter.replayed(step.tally)
            self._report(job, step, log)
        return step

    def _fails(self, job: RunningJob, reason: str, *, since: float) -> bool:
        """Put the job behind the others that fail; return whether it did not fail for this reason before."""
        self._lost_seconds += self._clock.monotonic() - since
        known = self._failures.pop(job, None)
        self._failures[job] = reason
        return known != reason

    def _report(self, job: RunningJob, step: Step, log: Any) -> None:
        """Log the end of a job, and once a minute how far it is."""
        if step.job.state is JobState.DONE:
            log.info("replay.ended", **step.job.progress())
        elif self._clock.monotonic() >= self._log_at.setdefault(job, self._clock.monotonic()):
            log.info("replay.moved", **step.job.progress(), remaining=step.job.remaining)
            self._log_at[job] = self._clock.monotonic() + LOGGED_SECONDS

    def _forget_all_but(self, jobs: list[RunningJob]) -> None:
        for gone in set(self._log_at) - set(jobs) - set(self._failures):
            self._log_at.pop(gone)
