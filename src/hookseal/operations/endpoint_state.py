"""Whether an endpoint takes deliveries: enabling it releases what waits, disabling it holds back what comes."""

from dataclasses import dataclass

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import endpoints, waiting
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoints import require_drainable
from hookseal.operations.operator import Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Enabled:
    """An endpoint that takes deliveries. `changed` tells whether it did not before; `woken` what waited for it."""

    changed: bool
    woken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """An endpoint that takes no deliveries, and why. `changed` tells whether it did before."""

    changed: bool
    reason: str | None


async def enable_endpoint(
    operator: Operator, tenant: TenantId, endpoint_id: EndpointId, *, own_drain_seconds: int
) -> Enabled:
    """Let the endpoint take deliveries again; what waited for it is let go, oldest first, by the worker that leads.

    An enabled one stays as it is.

    Raises `NotFound`, `Refused` if a live worker could not end its requests within a drain, `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await endpoints.locked(connection, tenant, endpoint_id)
        if found.enabled:
            return Enabled(changed=False, woken=0)
        await require_drainable(operator, found.timeout_ms, own_drain_seconds=own_drain_seconds)
        await endpoints.enable(connection, tenant, endpoint_id)
        await waiting.release(connection, tenant, endpoint_id)
        woken = await waiting.count(connection, tenant, endpoint_id)
        await operator.tell(
            _change(Action.ENDPOINT_ENABLED, tenant, endpoint_id, before=found.disabled_reason, after=None)
        )
    return Enabled(changed=True, woken=woken)


async def disable_endpoint(operator: Operator, tenant: TenantId, endpoint_id: EndpointId, *, reason: str) -> Disabled:
    """Give the endpoint nothing more, from the next claim on: what it has waits, and so does what is published for it.

    One that is disabled stays as it is, with its reason. Raises `NotFound`, `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await endpoints.locked(connection, tenant, endpoint_id)
        if not found.enabled:
            return Disabled(changed=False, reason=found.disabled_reason)
        await endpoints.disable(connection, tenant, endpoint_id, reason)
        await waiting.release(connection, tenant, endpoint_id)  # from its secret: it waits for this now
        await operator.tell(_change(Action.ENDPOINT_DISABLED, tenant, endpoint_id, before=None, after=reason))
    return Disabled(changed=True, reason=reason)


def _change(
    action: Action, tenant: TenantId, endpoint_id: EndpointId, *, before: str | None, after: str | None
) -> Change:
    """Return the change from one reason for being disabled to another."""
    was_enabled = action is Action.ENDPOINT_DISABLED
    return Change(
        tenant_id=tenant,
        action=action,
        subject=f"endpoint:{endpoint_id}",
        before={"enabled": was_enabled, "disabled_reason": before},
        after={"enabled": not was_enabled, "disabled_reason": after},
    )
