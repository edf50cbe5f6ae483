"""`hookseal endpoint add`: a new endpoint, and its secret on the one way out."""

from pathlib import Path
from typing import Annotated

import typer

from hookseal.cli import endpoint_options as options
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, printable
from hookseal.cli.runtime import run, start
from hookseal.cli.secret_files import SecretOutput, read_secret
from hookseal.config.settings import Settings
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground import ids
from hookseal.ground.wire import Scheme
from hookseal.operations.endpoints import AddedEndpoint, add_endpoint
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.signer import generate_signing_secret

Url = Annotated[
    str, typer.Option(help="Where to POST: https://host[:port]/path. Where a name leads is checked at each request.")
]
EventTypes = Annotated[list[str], typer.Option(help="What it subscribes to: a type, 'a.*' or '*'. Repeatable.")]
Timeout = Annotated[int, typer.Option(help="How long one request may take, 100 to 20000.")]
Schedule = Annotated[
    str | None, typer.Option(help="The waits between attempts in place of these three: 5s,5m,2h (s, m, h, d).")
]
SecretFile = Annotated[str | None, typer.Option(help="Sign with this secret, not a fresh one; - is stdin.")]
SecretOut = Annotated[Path | None, typer.Option(help="Write the secret to this new file (mode 0600).")]
PrintSecret = Annotated[bool, typer.Option("--print-secret", help="Print it even to a pipe or as JSON.")]


def add(
    *,
    tenant: options.Tenant,
    url: Url,
    event_type: EventTypes,
    name: options.Name = None,
    scheme: Annotated[Scheme, typer.Option(metavar="NAME", help="standard or x-webhook.")] = Scheme.STANDARD,
    timeout_ms: Timeout = 5000,
    max_attempts: options.MaxAttempts = None,
    backoff_base_seconds: options.BackoffBase = None,
    backoff_cap_seconds: options.BackoffCap = None,
    retry_schedule: Schedule = None,
    secret_file: SecretFile = None,
    secret_out: SecretOut = None,
    print_secret: PrintSecret = False,
    as_json: Json = False,
) -> None:
    """Add an endpoint with its signing secret, sealed.

    The secret is shown this once: on a terminal, in the file of --secret-out, or with --print-secret.

    Example: hookseal endpoint add --tenant acme --url https://example.com/hooks --event-type 'invoice.*'
    """
    settings, owner = start(NEEDS), ids.tenant_id(tenant)
    retries = options.retries(
        max_attempts=max_attempts, base=backoff_base_seconds, cap=backoff_cap_seconds, schedule=retry_schedule
    )
    decided = options.decided(settings, owner, url=url, event_type=event_type, name=name, timeout_ms=timeout_ms)
    endpoint = NewEndpoint(tenant_id=owner, scheme=scheme, **decided, **retries)
    secret = read_secret(secret_file, scheme) or generate_signing_secret()
    with SecretOutput(secret_out, print_it=print_secret, as_json=as_json).keeping(secret) as shown:
        added = run(_add(settings, endpoint, secret))
    emit(_shape(added, shown), as_json=as_json, text=lambda: _text(added, shown, secret_out))


async def _add(settings: Settings, endpoint: NewEndpoint, secret: SecretMaterial) -> AddedEndpoint:
    async with operating(settings) as operator:
        return await add_endpoint(operator, endpoint, secret, own_drain_seconds=settings.worker.drain_seconds)


def _shape(added: AddedEndpoint, shown: str | None) -> dict[str, object]:
    pointer = added.pointer
    return {
        "tenant_id": pointer.tenant_id,
        "endpoint_id": pointer.endpoint_id,
        "secret_ref": pointer.secret_ref,
        "previous_secret_ref": pointer.previous_secret_ref,
        "previous_secret_expires_at": pointer.previous_secret_expires_at,
        "generation": pointer.generation,
        "rotation_id": None,
        "secret": shown,
        "public_key": None,
    }


def _text(added: AddedEndpoint, shown: str | None, file: Path | None) -> str:
    if shown is not None:
        secret, advice = printable(shown), "Give the secret to the receiver; it is not shown again."
    elif file is not None:
        secret, advice = f"in {file}", "Give the secret to the receiver; it is not shown again."
    else:
        secret, advice = "not shown", _another(added)
    return f"endpoint  {added.pointer.endpoint_id}\nref       {added.pointer.secret_ref}\nsecret    {secret}\n{advice}"


def _another(added: AddedEndpoint) -> str:
    of = f"--tenant {added.pointer.tenant_id} --endpoint {added.pointer.endpoint_id}"
    return (
        "Nobody saw the secret: standard output is no terminal. For another, run\n"
        f"  hookseal endpoint rotate {of} --overlap 0 --secret-out FILE"
    )
