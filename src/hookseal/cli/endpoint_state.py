"""`hookseal endpoint enable | disable | delete`: whether an endpoint takes deliveries at all."""

import sys
from typing import Annotated

import typer

from hookseal.cli import endpoint_options as options
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, printable
from hookseal.cli.runtime import run, start
from hookseal.config.settings import Settings
from hookseal.dispatcher.endpoint_rules import disabled_reason
from hookseal.ground import ids
from hookseal.ground.errors import Malformed
from hookseal.operations.endpoint_state import Disabled, Enabled, disable_endpoint, enable_endpoint
from hookseal.operations.endpoints import delete_endpoint


def enable(*, tenant: options.Tenant, endpoint: options.Endpoint, as_json: Json = False) -> None:
    """Let an endpoint take deliveries again; what waited for it goes out, the oldest first.

    Example: hookseal endpoint enable --tenant acme --endpoint ID
    """
    owner, wanted = ids.tenant_id(tenant), ids.endpoint_id(endpoint)
    enabled = run(_enable(start(NEEDS), owner, wanted))
    emit(
        {
            "tenant_id": owner,
            "endpoint_id": wanted,
            "enabled": True,
            "changed": enabled.changed,
            "woken": enabled.woken,
        },
        as_json=as_json,
        text=f"endpoint {wanted} is enabled; due now that waited: {enabled.woken}"
        if enabled.changed
        else f"endpoint {wanted} was enabled already: nothing was changed",
    )


def disable(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    reason: Annotated[str, typer.Option(help="Why, for people, at most 256 characters.")] = "disabled by an operator",
    as_json: Json = False,
) -> None:
    """Send an endpoint nothing for now: what it has waits, and so does what is published for it, until it is enabled.

    What has waited for HOOKSEAL_HELD_DAYS ends as cancelled.

    Example: hookseal endpoint disable --tenant acme --endpoint ID --reason 'moves on Sunday'
    """
    owner, wanted, why = ids.tenant_id(tenant), ids.endpoint_id(endpoint), disabled_reason(reason)
    disabled = run(_disable(start(NEEDS), owner, wanted, why))
    emit(
        {
            "tenant_id": owner,
            "endpoint_id": wanted,
            "enabled": False,
            "disabled_reason": disabled.reason,
            "changed": disabled.changed,
        },
        as_json=as_json,
        text=f"endpoint {wanted} is disabled"
        if disabled.changed
        else f"endpoint {wanted} was disabled already ({printable(disabled.reason or '-')}): nothing was changed",
    )


def delete(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Needed where there is no terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Delete an endpoint: its url is free again, pending deliveries are cancelled, its secrets retire.

    What was delivered, and what was tried, stays on record.

    Example: hookseal endpoint delete --tenant acme --endpoint ID --yes
    """
    owner, wanted = ids.tenant_id(tenant), ids.endpoint_id(endpoint)
    settings = start(NEEDS)
    asked = f"Delete endpoint {wanted} of {owner}, and cancel what is pending for it?"
    if not yes and not sys.stdin.isatty():
        raise Malformed("nobody can be asked, for standard input is no terminal: give --yes to delete", field="yes")
    if not yes and not typer.confirm(asked, err=True):
        emit({"tenant_id": owner, "endpoint_id": wanted, "deleted": False}, as_json=as_json, text="nothing was deleted")
        raise typer.Exit(1)
    cancelled = run(_delete(settings, owner, wanted))
    emit(
        {"tenant_id": owner, "endpoint_id": wanted, "deleted": True, "cancelled": cancelled},
        as_json=as_json,
        text=f"endpoint {wanted} is deleted; pending deliveries cancelled: {cancelled}",
    )


async def _enable(settings: Settings, tenant: ids.TenantId, wanted: ids.EndpointId) -> Enabled:
    async with operating(settings) as operator:
        return await enable_endpoint(operator, tenant, wanted, own_drain_seconds=settings.worker.drain_seconds)


async def _disable(settings: Settings, tenant: ids.TenantId, wanted: ids.EndpointId, reason: str) -> Disabled:
    async with operating(settings) as operator:
        return await disable_endpoint(operator, tenant, wanted, reason=reason)


async def _delete(settings: Settings, tenant: ids.TenantId, wanted: ids.EndpointId) -> int:
    async with operating(settings) as operator:
        return await delete_endpoint(operator, tenant, wanted)
