"""`hookseal endpoint enable | disable | delete`: let deliveries go to an endpoint, hold them, or end them."""

import sys
from typing import Annotated

import typer

from hookseal.cli.endpoint import options
from hookseal.cli.shared.moments import moment
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, printable
from hookseal.cli.shared.runtime import start
from hookseal.dispatcher.core.endpoint_rules import disabled_reason
from hookseal.dispatcher.core.replay_job import ReplayJob, Selection
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.ids import plural
from hookseal.operations.endpoint.endpoints import Enabled, delete_endpoint, disable_endpoint
from hookseal.operations.replay import enable_and_replay


def enable(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    since: Annotated[
        str | None,
        typer.Option(
            help="Also start a replay job for its deliveries that were made since then and not delivered: "
            "2026-01-31T12:00:00Z, or 1h, 7d (ago)."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send deliveries to an endpoint again, and release its held deliveries, the oldest first.

    If it is enabled and its breaker is open, or its secret is refused, its oldest delivery is tried now.

    Example: hookseal endpoint enable --tenant acme --endpoint ID --since 2026-01-31T12:00:00Z
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    earliest = moment(since, "since")
    missed = None if earliest is None else Selection(tenant_id=owner, endpoint_id=wanted, since=earliest)
    settings = start(NEEDS)
    drain = settings.worker.drain_seconds
    enabled, job = operate(
        settings,
        lambda operator: enable_and_replay(operator, owner, wanted, missed, own_drain_seconds=drain),
    )
    emit(
        {
            "tenant_id": owner,
            "endpoint_id": wanted,
            "enabled": True,
            "changed": enabled.changed,
            "woken": enabled.woken,
            "in_line": enabled.in_line,
            "line_head": enabled.line_head,
            "probed": enabled.probed,
            "replay": None if job is None else job.shown(),
        },
        as_json=as_json,
        text=_enabled_text(wanted, enabled, job) + ("\nnothing is to be replayed" if missed and job is None else ""),
    )


def _enabled_text(endpoint: ids.EndpointId, enabled: Enabled, job: ReplayJob | None) -> str:
    if enabled.changed:
        done = f"is enabled; held deliveries that are released: {enabled.woken}"
        if enabled.in_line:
            done += f"; that wait in line behind delivery {enabled.line_head}: {enabled.in_line}"
    elif enabled.probed:
        done = "was enabled already; its deliveries are held, and the oldest of them is tried now"
    else:
        done = f"was enabled already{'' if job else ': nothing was changed'}"
    if job is not None:
        done += f"\nreplay job {job.replay_id} runs: {plural(job.matched, 'delivery', 'deliveries')}"
    return f"endpoint {endpoint} {done}"


def disable(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    reason: Annotated[
        str, typer.Option(help="The reason, for people, at most 256 characters.")
    ] = "disabled by an operator",
    as_json: Json = False,
) -> None:
    """Send nothing to an endpoint until it is enabled again; its deliveries, old and new, are held.

    A delivery that is held for HOOKSEAL_HELD_DAYS is cancelled.

    Example: hookseal endpoint disable --tenant acme --endpoint ID --reason 'moves on Sunday'
    """
    owner, wanted, why = ids.owner_id(tenant), ids.endpoint_id(endpoint), disabled_reason(reason)
    disabled = operate(start(NEEDS), lambda operator: disable_endpoint(operator, owner, wanted, reason=why))
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
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Required without a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Delete an endpoint: cancel its pending deliveries, retire its secrets, and free its URL.

    Its finished deliveries and their attempts stay on record until HOOKSEAL_RETENTION_DAYS have passed.

    Example: hookseal endpoint delete --tenant acme --endpoint ID --yes
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    settings = start(NEEDS)
    asked = f"Delete endpoint {wanted} of {owner}, and cancel its pending deliveries?"
    if not yes and not sys.stdin.isatty():
        raise Malformed("standard input is no terminal, so the command cannot ask: add --yes to delete", field="yes")
    if not yes and not typer.confirm(asked, err=True):
        emit({"tenant_id": owner, "endpoint_id": wanted, "deleted": False}, as_json=as_json, text="nothing was deleted")
        raise typer.Exit(1)
    cancelled = operate(settings, lambda operator: delete_endpoint(operator, owner, wanted))
    emit(
        {"tenant_id": owner, "endpoint_id": wanted, "deleted": True, "cancelled": cancelled},
        as_json=as_json,
        text=f"endpoint {wanted} is deleted; pending deliveries cancelled: {cancelled}",
    )
