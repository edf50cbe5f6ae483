"""Writes the reports of workers to the audit log: refused secrets, every minute, and stale rows, once each."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.audit import log
from hookseal.audit.chain import Action, Change
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.operations.operator import Operator

_OTHERS: Final = "tenants:others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """How often a worker was refused the secrets of a tenant from `since` to `until`, by the code of the error.

    `endpoints` are the endpoints concerned, all or the first ones. A row with the tenant `_system` sums up all tenants
    beyond the number that is counted separately.
    """

    tenant_id: TenantId
    worker: str
    since: datetime
    until: datetime
    counts: Mapping[str, int]
    endpoints: tuple[EndpointId, ...]
    endpoints_are_all: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A stale row of an endpoint or of its secrets, and the restore epoch in which it was found."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    generation: int
    reason: str
    restore_epoch: int


async def audit_denied(operator: Operator, denied: Denied, *, again: bool) -> bool:
    """Audit the refusals, and return whether they were new.

    `again`: an earlier call may have written them, so the log is read first. Raises `Unavailable`, and `Refused` if the
    log accepts no row.
    """
    change = _change(denied)
    async with operator.changing() as connection:
        if again:
            await log.lock_chain(
                connection, denied.tenant_id
            )  # an earlier call that is still running ends before this returns
            if await log.is_recorded(connection, change):
                return False
        await operator.audit(change.action, of=change.subject, tenant=change.tenant_id, after=change.after)
    return True


async def audit_stale(operator: Operator, stale: Stale) -> bool:
    """Audit the stale row, unless the log has it in this epoch, since the endpoint was last accepted.

    Returns whether it was new. Raises `Unavailable`, and `Refused` where the SQL role may not write the log.
    """
    subject = f"endpoint:{stale.endpoint_id}"
    facts = {"found_generation": stale.generation, "reason": stale.reason, "restore_epoch": stale.restore_epoch}
    async with operator.changing() as connection:
        await log.lock_chain(connection, stale.tenant_id)  # several workers may find it at the same time; one audits it
        audited = await log.facts_since(
            connection, stale.tenant_id, subject, Action.STALE_FOUND, since=Action.RESTORE_ACCEPTED
        )
        if facts in audited:
            return False
        await operator.audit(Action.STALE_FOUND, of=stale, after=facts)
    return True


def _change(denied: Denied) -> Change:
    is_of_one = denied.tenant_id != SYSTEM_TENANT
    return Change(
        tenant_id=denied.tenant_id,
        action=Action.SECRET_DENIED,
        subject=f"tenant:{denied.tenant_id}" if is_of_one else _OTHERS,
        after={
            "worker": denied.worker,
            "from": denied.since,
            "to": denied.until,
            "denied": dict(sorted(denied.counts.items())),
        }
        | ({"endpoints": list(denied.endpoints), "endpoints_are_all": denied.endpoints_are_all} if is_of_one else {}),
    )
