"""What a worker refused to sign for, audited by the minute: one row for a tenant, however often it was."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.audit import log
from hookseal.audit.entry import Action, Change
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.operations.operator import Operator

_OTHERS: Final = "tenants:others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """How often the secrets of a tenant were refused to one worker between two moments, by the code of the error.

    `endpoints` are those that it was refused for, all or the first ones. What stands under `_system` was refused to so
    many tenants at a time that they are not told apart.
    """

    tenant_id: TenantId
    worker: str
    since: datetime
    until: datetime
    counts: Mapping[str, int]
    endpoints: tuple[EndpointId, ...]
    endpoints_are_all: bool


async def tell_denied(operator: Operator, denied: Denied, *, again: bool) -> bool:
    """Audit it; `again` if that was tried before and may have been done, then the log is looked at first.

    Returns whether it was new.

    Raises `Unavailable`, and `Refused` where the log takes no row.
    """
    change = _change(denied)
    async with operator.changing() as connection:
        if again:
            await log.hold(connection, denied.tenant_id)  # an earlier try that still runs has ended then
            if await log.is_told(connection, change):
                return False
        await operator.tell(change)
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
