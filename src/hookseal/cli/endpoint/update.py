"""`hookseal endpoint update`: change the settings of an endpoint, from its next claim on."""

from typing import Annotated, Any, Literal

import typer

from hookseal.cli.endpoint import options
from hookseal.cli.endpoint.extras import (
    AllHeadersFile,
    CaFile,
    ClientCert,
    ClientKey,
    Header,
    RemoveCa,
    RemoveClientCert,
    RemoveHeader,
    header_change,
    tls_change,
    tls_lines,
)
from hookseal.cli.shared.input_files import require_one_from_stdin
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, value
from hookseal.cli.shared.runtime import start
from hookseal.dispatcher.core import endpoint_rules
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.operations.endpoint.update import HEADERS, TLS, Updated, update_endpoint

EventTypes = Annotated[
    list[str] | None,
    typer.Option(metavar="TYPE", help="The event types that it gets, in place of all that it has. Repeatable."),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        help="The waits between attempts: 5s,5m,2h; none: use --max-attempts and the two back-off options; "
        "default: the default schedule."
    ),
]
Lead = Annotated[
    Literal["previous", "current"] | None,
    typer.Option(
        metavar="WHICH", help="x-webhook: which secret signs the plain header in an overlap, previous or current."
    ),
]
Ordered = Annotated[bool, typer.Option("--ordered", help="Refused: an endpoint is ordered when it is added, or never.")]
Expected = Annotated[
    int | None,
    typer.Option(
        help="Make the change only at this generation. A change of url, lead, headers, TLS or secrets raises it."
    ),
]


def update(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    url: Annotated[str | None, typer.Option(help="Where to POST from now on.")] = None,
    event_type: EventTypes = None,
    name: options.Name = None,
    timeout_ms: Annotated[int | None, typer.Option(help="The limit for one request, 100 to 20000 ms.")] = None,
    max_attempts: options.MaxAttempts = None,
    backoff_base_seconds: options.BackoffBase = None,
    backoff_cap_seconds: options.BackoffCap = None,
    retry_schedule: Schedule = None,
    concurrency: options.Concurrency = None,
    rate: options.Rate = None,
    on_dead_letter: options.AfterDeadLetter = None,
    ordered: Ordered = False,
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
    """Change the given settings of an endpoint, all of them or none, and leave the others.

    Example: hookseal endpoint update --tenant acme --endpoint ID --url https://example.com/new --timeout-ms 8000
    """
    settings, owner, wanted = start(NEEDS), ids.owner_id(tenant), ids.endpoint_id(endpoint)
    if ordered:
        raise endpoint_rules.order_stays()
    changes = options.pace((max_attempts, backoff_base_seconds, backoff_cap_seconds), retry_schedule, rotate_every_days)
    changes |= options.limits(concurrency, rate)
    changes |= options.decided(settings, owner, url=url, event_type=event_type, name=name, timeout_ms=timeout_ms)
    files, removals = (client_cert, client_key, ca_file), (remove_client_cert, remove_ca)
    require_one_from_stdin(headers_file, *files)
    headers, tls = header_change(header, headers_file, remove_header), tls_change(files, removals)
    others = ("lead", lead), ("on_dead_letter", on_dead_letter), (HEADERS, headers), (TLS, tls)
    changes |= {name: value for name, value in others if value is not None}
    _require_some(changes)
    updated = operate(
        settings,
        lambda operator: update_endpoint(
            operator,
            owner,
            wanted,
            changes,
            own_drain_seconds=settings.worker.drain_seconds,
            expect_generation=expect_generation,
        ),
    )
    emit(_shape(owner, wanted, updated), as_json=as_json, text=lambda: _text(wanted, updated))


def _require_some(changes: dict[str, Any]) -> None:
    if not changes:
        raise Malformed("give at least one thing to change: `hookseal endpoint update --help` lists them")


def _shape(tenant: ids.TenantId, wanted: ids.EndpointId, updated: Updated) -> dict[str, object]:
    return {
        "tenant_id": tenant,
        "endpoint_id": wanted,
        "generation": updated.generation,
        "changed": list(updated.changed),
    }


def _text(wanted: ids.EndpointId, updated: Updated) -> str:
    if not updated.changed:
        return f"endpoint {wanted} has these settings already: nothing was changed"
    lines = [f"{name}: {_change(name, updated)}" for name in updated.changed]
    return "\n".join([f"endpoint {wanted} is changed; generation {updated.generation}", *lines])


def _change(name: str, updated: Updated) -> str:
    before, after = _value(updated.before[name]), _value(updated.after[name])
    return f"{after}, with other values" if before == after else f"{before} -> {after}"


def _value(fact: object) -> str:
    if isinstance(fact, dict):
        return "; ".join(tls_lines(fact))
    return value(list(fact) if isinstance(fact, tuple) else fact)
