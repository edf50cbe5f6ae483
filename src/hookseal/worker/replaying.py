"""The leader executes replay jobs: each look takes one step of every running job, or more if its rate allows."""

from collections.abc import Callable
from typing import Any, Final

from hookseal.dispatcher import replay_jobs
from hookseal.dispatcher.ledger import Chore
from hookseal.dispatcher.replay_job import JobState
from hookseal.dispatcher.replay_jobs import RunningJob, Step
from hookseal.ground.clock import Clock
from hookseal.ground.errors import HooksealError
from hookseal.operations.operator import Operator
from hookseal.operations.replay import take_step
from hookseal.postgres.handles import Connection, Pool, connected
from hookseal.worker.chores import Leader
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.outage_log import Outage

LOOK_SECONDS: Final = 1.0
LOGGED_SECONDS: Final = 60.0
MOST_JOBS: Final = 100  # in one look


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
        self._outage = Outage("replaying", log)
        self._log_at: dict[RunningJob, float] = {}
        self._failures: dict[RunningJob, str] = {}

    async def run(self) -> None:
        """Look until cancelled. An outage is logged once."""
        while True:
            more = False
            if self._leader.leads and self._leader.may_have(Chore.REPLAYS):
                with self._outage.survived():
                    more = await self.once()
            if not more:
                await self._clock.sleep(LOOK_SECONDS)

    async def once(self) -> bool:
        """Take a step of each running job; return whether one of them may go on at once.

        A job that fails delays no other; the reason is logged once. Raises `Unavailable` if the jobs cannot be read.
        """
        jobs = await replay_jobs.running(self._pool, at_most=MOST_JOBS)
        self._forget_all_but(jobs)
        steps = [await self._step(job) for job in jobs if self._leader.leads]
        return any(step is not None and step.may_go_on for step in steps)

    async def _step(self, job: RunningJob) -> Step | None:
        log = self._log.bind(tenant_id=job.tenant_id, replay_id=job.replay_id)
        try:
            async with connected(self._pool) as connection:
                step = await take_step(self._as_operator(connection), job)
        except HooksealError as error:
            if self._is_new(job, str(error)):
                log.warning("replay.failed", reason=str(error))
            return None
        except Exception as error:
            if self._is_new(job, type(error).__name__):
                log.exception("replay.defect")
            return None
        self._failures.pop(job, None)
        if step is not None:
            self._meter.replayed(step.tally)
            self._report(job, step, log)
        return step

    def _is_new(self, job: RunningJob, reason: str) -> bool:
        """Return whether this job did not fail for this reason at its last step, too."""
        known, self._failures[job] = self._failures.get(job), reason
        return known != reason

    def _report(self, job: RunningJob, step: Step, log: Any) -> None:
        """Log the end of a job, and once a minute how far it is."""
        if step.job.state is JobState.DONE:
            log.info("replay.ended", **step.job.progress())
        elif self._clock.monotonic() >= self._log_at.setdefault(job, self._clock.monotonic()):
            log.info("replay.moved", **step.job.progress(), remaining=step.job.remaining)
            self._log_at[job] = self._clock.monotonic() + LOGGED_SECONDS

    def _forget_all_but(self, jobs: list[RunningJob]) -> None:
        for kept in (self._log_at, self._failures):
            for gone in set(kept) - set(jobs):
                kept.pop(gone)
