"""`hookseal endpoint add`: a new endpoint, and its secret on the one way out."""

from pathlib import Path
from typing import Annotated

import typer

from hookseal.cli import endpoint_options as options
from hookseal.cli.endpoint_headers import Header, HeadersFile, read_headers
from hookseal.cli.endpoint_tls import CaFile, ClientCert, ClientKey, read_tls
from hookseal.cli.input_files import require_one_from_stdin
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, printable
from hookseal.cli.runtime import run, start
from hookseal.cli.secret_files import SecretOutput, handed_out, read_secret
from hookseal.config.settings import Settings
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground import ids
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoints import AddedEndpoint, Beside, add_endpoint
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.overlap import require_signable
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
SecretOut = Annotated[
    Path | None,
    typer.Option(help="Write the secret to this new file (mode 0600); with ed25519 the public key, for the receiver."),
]
PrintSecret = Annotated[
    bool, typer.Option("--print-secret", help="Print it even to a pipe or as JSON; of ed25519 only the public key is.")
]


def add(
    *,
    tenant: options.Tenant,
    url: Url,
    event_type: EventTypes,
    name: options.Name = None,
    scheme: Annotated[Scheme, typer.Option(metavar="NAME", help="standard or x-webhook.")] = Scheme.STANDARD,
    algorithm: Annotated[Algorithm, typer.Option(metavar="NAME", help="hmac or ed25519.")] = Algorithm.HMAC,
    timeout_ms: Timeout = 5000,
    max_attempts: options.MaxAttempts = None,
    backoff_base_seconds: options.BackoffBase = None,
    backoff_cap_seconds: options.BackoffCap = None,
    retry_schedule: Schedule = None,
    rotate_every_days: options.RotateEvery = None,
    header: Header = None,
    headers_file: HeadersFile = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    ca_file: CaFile = None,
    secret_file: SecretFile = None,
    secret_out: SecretOut = None,
    print_secret: PrintSecret = False,
    as_json: Json = False,
) -> None:
    """Add an endpoint with its signing secret, sealed.

    The secret is shown on a terminal, in the file of --secret-out, or with --print-secret; later by `secret reveal`.

    Example: hookseal endpoint add --tenant acme --url https://example.com/hooks --event-type 'invoice.*'
    """
    settings, owner = start(NEEDS), ids.tenant_id(tenant)
    waits = (max_attempts, backoff_base_seconds, backoff_cap_seconds), retry_schedule, rotate_every_days
    decided = options.decided(settings, owner, url=url, event_type=event_type, name=name, timeout_ms=timeout_ms)
    endpoint = NewEndpoint(tenant_id=owner, scheme=scheme, algorithm=algorithm, **decided, **options.pace(*waits))
    require_one_from_stdin(secret_file, headers_file, client_cert, client_key, ca_file)
    secret = _secret(endpoint, secret_file)
    beside = Beside(headers=read_headers(header, headers_file), tls=read_tls(client_cert, client_key, ca_file))
    with SecretOutput(secret_out, print_it=print_secret, as_json=as_json).keeping(handed_out(secret)) as shown:
        added = run(_add(settings, endpoint, secret, beside))
    _emit(added, shown if added.public_key is None else None, secret_out, as_json=as_json)


def _secret(endpoint: NewEndpoint, secret_file: str | None) -> SecretMaterial:
    """Return the signing secret, a fresh one if none was given."""
    require_signable(endpoint.scheme, endpoint.algorithm)
    given = read_secret(secret_file, endpoint.scheme, endpoint.algorithm)
    return given or generate_signing_secret(endpoint.algorithm)


async def _add(settings: Settings, endpoint: NewEndpoint, secret: SecretMaterial, beside: Beside) -> AddedEndpoint:
    drain = settings.worker.drain_seconds
    async with operating(settings) as operator:
        return await add_endpoint(operator, endpoint, secret, own_drain_seconds=drain, beside=beside)


def _emit(added: AddedEndpoint, shown: str | None, file: Path | None, *, as_json: bool) -> None:
    emit(_shape(added, shown), as_json=as_json, text=lambda: _text(added, shown, file))


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
        "public_key": added.public_key,
    }


def _text(added: AddedEndpoint, shown: str | None, file: Path | None) -> str:
    if added.public_key is not None:
        also = "" if file is None else f"\n          also in {file}"
        secret, advice = f"public    {added.public_key}{also}", _again(added)
    elif shown is not None:
        secret, advice = f"secret    {printable(shown)}", "Give the secret to the receiver."
    elif file is not None:
        secret, advice = f"secret    in {file}", "Give the secret to the receiver."
    else:
        secret, advice = "secret    not shown", _another(added)
    return f"endpoint  {added.pointer.endpoint_id}\nref       {added.pointer.secret_ref}\n{secret}\n{advice}"


def _again(added: AddedEndpoint) -> str:
    return f"Give this public key to the receiver. To see it again, run\n  hookseal endpoint public-key {_of(added)}"


def _of(added: AddedEndpoint) -> str:
    return f"--tenant {added.pointer.tenant_id} --endpoint {added.pointer.endpoint_id}"


def _another(added: AddedEndpoint) -> str:
    return (
        "Nobody saw the secret: standard output is no terminal. To get it, run\n"
        f"  hookseal secret reveal {_of(added)} --secret-out FILE"
    )
