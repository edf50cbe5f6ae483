"""Replays deliveries, one at once or many by a job, and sends examples, audited.

It needs no Redis: the outbox rings what is due.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hookseal.audit import log
from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.replay_job import DEFAULT_RATE, MAX_RUNNING, JobState, ReplayJob, Selection
from hookseal.dispatcher.core.why import explain
from hookseal.dispatcher.store import delivery_queries, publish, replays
from hookseal.dispatcher.store.publish import PublishResult
from hookseal.dispatcher.store.replays import (
    BATCH,
    FIRST,
    LOCK_WAIT,
    MOST_PUT_OFF,
    Hastened,
    Replayed,
    RunningJob,
    Skipped,
    Step,
)
from hookseal.errors import Conflict, NotFound, Refused
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, ReplayId, TenantId, plural
from hookseal.operations.endpoint.endpoints import Enabled, enable_endpoint
from hookseal.operations.operator import Operator


async def replay_delivery(
    operator: Operator,
    delivery_id: DeliveryId,
    *,
    new_id: bool,
    tenant: TenantId | None = None,
    resend_id: str | None = None,
) -> Replayed:
    """Make a finished delivery, by default of any tenant, due again with a new budget; with `new_id`, as a new one.

    A delivery whose next attempt is due later is due at once, with its budget as it is. If its endpoint is held, it
    waits with its other deliveries. Raises `NotFound`, `Conflict` if it is otherwise not finished, whose advice says
    what it waits for and which command ends that, `Refused` if its endpoint is disabled, and `Unavailable`.
    """
    async with operator.changing() as connection:
        try:
            replayed = await replays.replay(connection, delivery_id, new_id=new_id, tenant=tenant)
        except Conflict as error:
            standing = explain(await delivery_queries.facts(connection, delivery_id, tenant=tenant)).text
            raise Conflict(str(error), advice=standing, joint="\n", field=error.field) from None
        state, attempts = replayed.before
        await operator.audit(
            Action.DELIVERY_REPLAYED,
            of=f"delivery:{delivery_id}",
            tenant=replayed.tenant_id,
            before={"state": state.value, "attempts": attempts},
            after={
                "state": State.PENDING.value,
                "delivery_id": replayed.delivery_id,
                "replay_of": replayed.replay_of,
            }
            | ({} if resend_id is None else {"resend_id": resend_id}),
        )
    return replayed


async def resend_delivery(
    operator: Operator, tenant: TenantId, event_id: EventId, endpoint_id: EndpointId, *, resend_id: str | None = None
) -> Replayed:
    """Replay the newest delivery of the event to the endpoint, once for each `resend_id`, which the audit log keeps.

    With the same one again it changes nothing, and returns what it did. While another one has not ended, it waits for
    that. Raises `NotFound`, and as `replay_delivery` does.
    """
    async with operator.changing() as connection:
        newest = await delivery_queries.latest(connection, tenant, event_id, endpoint_id)
        done = None
        if resend_id is not None:
            await replays.lock(connection, newest, tenant=tenant)
            done = await _resent(operator, tenant, newest, resend_id)
        if done is None:
            return await replay_delivery(operator, newest, new_id=False, tenant=tenant, resend_id=resend_id)
    before, after = done
    return Replayed(
        tenant_id=tenant,
        delivery_id=newest,
        endpoint_id=endpoint_id,
        event_id=event_id,
        replay_of=after["replay_of"],
        waiting_for=None,
        before=(State(before["state"]), before["attempts"]),
    )


async def _resent(
    operator: Operator, tenant: TenantId, delivery_id: DeliveryId, resend_id: str
) -> tuple[Any, Any] | None:
    """Return what the audit log has before and after the replay of the delivery with this id; None if there is none."""
    replayed = await log.changes(operator.connection, tenant, f"delivery:{delivery_id}", Action.DELIVERY_REPLAYED)
    return next((each for each in replayed if each[1].get("resend_id") == resend_id), None)


async def send_example(
    operator: Operator, tenant: TenantId, endpoint_id: EndpointId, event_type: str, content: str | bytes
) -> PublishResult:
    """Publish an event to this endpoint only: JSON text of `payload.encoded`, or a body. Workers deliver it.

    Raises `NotFound`, `Refused` if the endpoint is disabled, `Malformed` and `Unavailable`.
    """
    async with operator.changing() as connection:
        await replays.require_endpoint(connection, tenant, endpoint_id)
        published = await publish.send_example(connection, tenant, endpoint_id, event_type, content)
        [delivery] = published.deliveries
        await operator.audit(
            Action.EXAMPLE_SENT,
            of=f"delivery:{delivery.delivery_id}",
            tenant=tenant,
            after={"endpoint_id": endpoint_id, "event_id": published.event_id, "event_type": event_type},
        )
    return published


async def retry(
    operator: Operator,
    tenant: TenantId,
    endpoint_id: EndpointId,
    *,
    report: Callable[[int], None] | None = None,
    batch: int = BATCH,
    page: int = MOST_PUT_OFF,
) -> Hastened:
    """Make every delivery of the endpoint due now that waits for its next attempt, `batch` in each transaction.

    They are found `page` at a time, since finding them reads all that is pending. Their budgets and their order stay,
    and what is held stays held. `report` is called with the number of each transaction. Raises `NotFound`, `Refused` if
    the endpoint is disabled, and `Unavailable`.
    """
    due = held = 0
    async with operator.changing() as connection:
        await replays.require_endpoint(connection, tenant, endpoint_id)
    after: str | None = FIRST
    while after is not None:
        found = await replays.put_off(operator.connection, tenant, endpoint_id, after=after, at_most=page)
        for start in range(0, len(found), batch):
            some = await _hasten(operator, tenant, endpoint_id, found[start : start + batch])
            due, held = due + some.due, held + some.held
            if report is not None:
                report(some.due + some.held)
        after = found[-1] if len(found) == page else None
    return Hastened(due=due, held=held)


async def _hasten(operator: Operator, tenant: TenantId, endpoint_id: EndpointId, deliveries: Sequence[str]) -> Hastened:
    async with operator.changing() as connection:
        await replays.require_endpoint(connection, tenant, endpoint_id)
        hastened = await replays.hasten(connection, tenant, endpoint_id, deliveries)
        if hastened.due or hastened.held:
            await operator.audit(
                Action.ENDPOINT_RETRIED,
                of=f"endpoint:{endpoint_id}",
                tenant=tenant,
                after={"due": hastened.due, "held": hastened.held},
            )
    return hastened


async def skip_delivery(operator: Operator, delivery_id: DeliveryId, *, tenant: TenantId | None = None) -> Skipped:
    """Let the line of an ordered endpoint go on behind this dead letter or failed delivery, by default of any tenant.

    The delivery stays what it is, and may be replayed at the end of the line. Raises `NotFound`, `Conflict` if it stops
    no line, and `Unavailable`.
    """
    async with operator.changing() as connection:
        skipped = await replays.skip(connection, delivery_id, tenant=tenant)
        await operator.audit(
            Action.DELIVERY_SKIPPED,
            of=f"delivery:{delivery_id}",
            tenant=skipped.tenant_id,
            before={"stops": f"endpoint:{skipped.endpoint_id}"},
            after={"state": skipped.state.value, "stops": None},
        )
    return skipped


async def start_replay(operator: Operator, selection: Selection, *, rate: int = DEFAULT_RATE) -> ReplayJob:
    """Start a job that replays the deliveries of the selection, `rate` a second; the leader executes it.

    The job is about what was made before now. Raises `NotFound` if nothing is selected, `Refused` if all of it is of
    disabled or deleted endpoints, `Conflict` if as many jobs of the tenant run as may, and `Unavailable`.
    """
    async with operator.changing() as connection:
        if selection.endpoint_id is not None:
            await replays.require_endpoint(connection, selection.tenant_id, selection.endpoint_id)
        tally, _ = await replays.count(connection, selection)
        if not tally.total:
            raise NotFound(
                "no finished delivery meets these conditions: there is nothing to replay"
                " (without delivered ones, what was delivered since under another id is left out)"
            )
        if not tally.replayed:
            raise Refused(
                "nothing can be replayed: the endpoints of these deliveries are disabled "
                f"({plural(tally.disabled, 'delivery', 'deliveries')}; enable them first) or deleted ({tally.deleted})",
                public="nothing can be replayed: the endpoints of these deliveries are disabled or deleted",
            )
        job = await replays.insert(connection, selection, rate=rate, matched=tally.total)
        await operator.audit(
            Action.REPLAY_STARTED,
            of=_subject(job.replay_id),
            tenant=selection.tenant_id,
            after={**job.selection.shown(), "rate": rate, "matched": job.matched},
        )
        # The log lets one transaction of the tenant after another append, so that this count is exact.
        if await replays.count_running(connection, selection.tenant_id) > MAX_RUNNING:
            raise Conflict(
                f"{MAX_RUNNING} replay jobs of this tenant run already: wait until one is done, or cancel one",
                advice=f"(`hookseal replay list --tenant {selection.tenant_id} --state running`)",
                joint=" ",
            )
    return job


async def cancel_replay(operator: Operator, replay_id: ReplayId, *, tenant: TenantId | None = None) -> ReplayJob:
    """Cancel a running job, by default of any tenant. What it has replayed stays replayed.

    Raises `NotFound`, `Conflict` if it has ended, and `Unavailable`.
    """
    async with operator.changing() as connection:
        job = await replays.cancel(connection, replay_id, tenant=tenant)
        await operator.audit(
            Action.REPLAY_CANCELLED,
            of=_subject(replay_id),
            tenant=job.selection.tenant_id,
            after=job.progress(),
        )
    return job


async def take_step(operator: Operator, running: RunningJob, *, lock_wait: float = LOCK_WAIT) -> Step | None:
    """Take the next step of a running job, and audit its end if it is the last one.

    Returns None if the job takes no step now (`replay_jobs.step`). Raises `Refused` if the audit log accepts no row,
    and `Unavailable`, also if it waits longer than `lock_wait` seconds for a lock; the step is then not done.
    """
    async with operator.changing() as connection:
        step = await replays.step(connection, running, lock_wait=lock_wait)
        if step is not None and step.job.state is JobState.DONE:
            await operator.audit(
                Action.REPLAY_ENDED, of=_subject(running.replay_id), tenant=running.tenant_id, after=step.job.progress()
            )
    return step


async def enable_and_replay(
    operator: Operator, tenant: TenantId, endpoint_id: EndpointId, missed: Selection | None, *, own_drain_seconds: int
) -> tuple[Enabled, ReplayJob | None]:
    """Enable the endpoint and start a job for what it missed, in one transaction; `missed` selects its deliveries.

    The job is None if nothing is to be replayed. Raises as `enable_endpoint` and `start_replay` do.
    """
    async with operator.changing():
        enabled = await enable_endpoint(operator, tenant, endpoint_id, own_drain_seconds=own_drain_seconds)
        if missed is None:
            return enabled, None
        try:
            return enabled, await start_replay(operator, missed)
        except NotFound:
            return enabled, None


def _subject(replay_id: ReplayId) -> str:
    return f"replay:{replay_id}"
