"""`hookseal endpoint update`: what an endpoint does from its next claim on."""

from typing import Annotated, Any, Literal

import typer

from hookseal.cli import endpoint_options as options
from hookseal.cli.endpoint_headers import AllHeadersFile, Header, RemoveHeader, header_change
from hookseal.cli.endpoint_tls import CaFile, ClientCert, ClientKey, RemoveCa, RemoveClientCert, tls_change, tls_lines
from hookseal.cli.facts import value
from hookseal.cli.input_files import require_one_from_stdin
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit
from hookseal.cli.runtime import run, start
from hookseal.config.settings import Settings
from hookseal.ground import ids
from hookseal.ground.errors import Malformed
from hookseal.operations.endpoint_update import HEADERS, TLS, Updated, update_endpoint

EventTypes = Annotated[
    list[str] | None, typer.Option(help="All that it subscribes to, in place of what it did. Repeatable.")
]
Schedule = Annotated[
    str | None, typer.Option(help="The waits between attempts: 5s,5m,2h; or none, to use these three again.")
]
Lead = Annotated[
    Literal["previous", "current"] | None,
    typer.Option(metavar="WHICH", help="Whose signature leads in an overlap (x-webhook): previous or current."),
]
Expected = Annotated[
    int | None,
    typer.Option(help="Only if the endpoint is at this generation, which url, lead, headers, TLS and secrets move."),
]


def update(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    url: Annotated[str | None, typer.Option(help="Where to POST from now on.")] = None,
    event_type: EventTypes = None,
    name: options.Name = None,
    timeout_ms: Annotated[int | None, typer.Option(help="How long one request may take, 100 to 20000.")] = None,
    max_attempts: options.MaxAttempts = None,
    backoff_base_seconds: options.BackoffBase = None,
    backoff_cap_seconds: options.BackoffCap = None,
    retry_schedule: Schedule = None,
    rotate_every_days: options.RotateEvery = None,
    header: Header = None,
    headers_file: AllHeadersFile = None,
    remove_header: RemoveHeader = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    ca_file: CaFile = None,
    remove_client_cert: RemoveClientCert = False,
    remove_ca: RemoveCa = False,
    lead: Lead = None,
    expect_generation: Expected = None,
    as_json: Json = False,
) -> None:
    """Change what is given and leave the rest. All of it is changed, or nothing.

    Example: hookseal endpoint update --tenant acme --endpoint ID --url https://example.com/new --timeout-ms 8000
    """
    settings, owner, wanted = start(NEEDS), ids.tenant_id(tenant), ids.endpoint_id(endpoint)
    changes = options.pace((max_attempts, backoff_base_seconds, backoff_cap_seconds), retry_schedule, rotate_every_days)
    changes |= options.decided(settings, owner, url=url, event_type=event_type, name=name, timeout_ms=timeout_ms)
    files, removals = (client_cert, client_key, ca_file), (remove_client_cert, remove_ca)
    require_one_from_stdin(headers_file, *files)
    headers, tls = header_change(header, headers_file, remove_header), tls_change(files, removals)
    beside = ("lead", lead), (HEADERS, headers), (TLS, tls)
    changes |= {name: value for name, value in beside if value is not None}
    _require_some(changes)
    updated = run(_update(settings, owner, wanted, changes, expect_generation=expect_generation))
    emit(_shape(owner, wanted, updated), as_json=as_json, text=lambda: _text(wanted, updated))


def _require_some(changes: dict[str, Any]) -> None:
    if not changes:
        raise Malformed("give at least one thing to change: `hookseal endpoint update --help` lists them")


async def _update(
    settings: Settings,
    tenant: ids.TenantId,
    wanted: ids.EndpointId,
    changes: dict[str, Any],
    *,
    expect_generation: int | None,
) -> Updated:
    drain = settings.worker.drain_seconds
    async with operating(settings) as operator:
        return await update_endpoint(
            operator, tenant, wanted, changes, own_drain_seconds=drain, expect_generation=expect_generation
        )


def _shape(tenant: ids.TenantId, wanted: ids.EndpointId, updated: Updated) -> dict[str, object]:
    return {
        "tenant_id": tenant,
        "endpoint_id": wanted,
        "generation": updated.generation,
        "changed": list(updated.changed),
    }


def _text(wanted: ids.EndpointId, updated: Updated) -> str:
    if not updated.changed:
        return f"endpoint {wanted} is so already: nothing was changed"
    lines = [f"{name}: {_change(name, updated)}" for name in updated.changed]
    return "\n".join([f"endpoint {wanted} is changed; generation {updated.generation}", *lines])


def _change(name: str, updated: Updated) -> str:
    before, after = _value(updated.before[name]), _value(updated.after[name])
    return f"{after}, with other values" if before == after else f"{before} -> {after}"


def _value(fact: object) -> str:
    if isinstance(fact, dict):
        return "; ".join(tls_lines(fact))
    return value(list(fact) if isinstance(fact, tuple) else fact)
