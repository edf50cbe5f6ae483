"""`hookseal endpoint add`: a new endpoint, and its secret for the receiver."""

from pathlib import Path
from typing import Annotated

import typer

from hookseal.cli.endpoint import options
from hookseal.cli.endpoint.extras import CaFile, ClientCert, ClientKey, Header, HeadersFile, read_headers, read_tls
from hookseal.cli.shared.input_files import require_one_from_stdin
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, printable
from hookseal.cli.shared.runtime import start
from hookseal.cli.shared.secret_files import SecretOutput, for_receiver, read_secret
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground import ids
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.endpoints import AddedEndpoint, add_endpoint
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.overlap import require_signable
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.extras.stored import EndpointExtras

Url = Annotated[
    str, typer.Option(help="Where to POST: https://host[:port]/path. Each request checks the address of the host.")
]
EventTypes = Annotated[
    list[str], typer.Option(metavar="TYPE", help="The event types that it gets: a type, 'a.*' or '*'. Repeatable.")
]
Timeout = Annotated[int, typer.Option(help="The limit for one request, 100 to 20000 ms.")]
Schedule = Annotated[
    str | None,
    typer.Option(help="The waits between attempts: 5s,5m,2h; default: ten waits, about three days in all."),
]
Ordered = Annotated[
    bool,
    typer.Option(
        "--ordered", help="Send its deliveries one after another, in the order of publishing. Cannot be changed later."
    ),
]
SecretFile = Annotated[
    str | None, typer.Option(help="A private file with the secret to use, in place of a new one; - is stdin.")
]
SecretOut = Annotated[
    Path | None,
    typer.Option(help="Write the secret to this new file (mode 0600); for ed25519 it gets the public key."),
]
PrintSecret = Annotated[
    bool,
    typer.Option("--print-secret", help="Print the secret even to a pipe or as JSON; for ed25519 only the public key."),
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
    concurrency: options.Concurrency = None,
    rate: options.Rate = None,
    ordered: Ordered = False,
    on_dead_letter: options.AfterDeadLetter = None,
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
    """Add an endpoint with a signing secret, which is stored encrypted.

    On a terminal it prints the secret for the receiver. In a script use --secret-out FILE or --print-secret. Later
    `hookseal secret reveal` gives the secret again.

    Example: hookseal endpoint add --tenant acme --url https://example.com/hooks --event-type 'invoice.*'
    """
    settings, owner = start(NEEDS), ids.owner_id(tenant)
    waits = (max_attempts, backoff_base_seconds, backoff_cap_seconds), retry_schedule, rotate_every_days
    decided = options.decided(settings, owner, url=url, event_type=event_type, name=name, timeout_ms=timeout_ms)
    decided |= options.pace(*waits) | options.limits(concurrency, rate)
    decided |= options.order(ordered=ordered, on_dead_letter=on_dead_letter)
    endpoint = NewEndpoint(tenant_id=owner, scheme=scheme, algorithm=algorithm, **decided)
    require_one_from_stdin(secret_file, headers_file, client_cert, client_key, ca_file)
    secret = _secret(endpoint, secret_file)
    own = EndpointExtras(headers=read_headers(header, headers_file), tls=read_tls(client_cert, client_key, ca_file))
    with SecretOutput(secret_out, print_it=print_secret, as_json=as_json).keeping(for_receiver(secret)) as shown:
        drain = settings.worker.drain_seconds
        added = operate(
            settings,
            lambda operator: add_endpoint(operator, endpoint, secret, own_drain_seconds=drain, own=own),
        )
    _emit(added, shown if added.public_key is None else None, secret_out, as_json=as_json)


def _secret(endpoint: NewEndpoint, secret_file: str | None) -> SecretMaterial:
    """Return the signing secret, a new one if no file was given."""
    require_signable(endpoint.scheme, endpoint.algorithm)
    given = read_secret(secret_file, endpoint.scheme, endpoint.algorithm)
    return given or generate_signing_secret(endpoint.algorithm)


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
        secret, advice = f"public    {added.public_key}{also}", _public_key_advice(added)
    elif shown is not None:
        secret, advice = f"secret    {printable(shown)}", "Give the secret to the receiver."
    elif file is not None:
        secret, advice = f"secret    in {file}", "Give the secret to the receiver."
    else:
        secret, advice = "secret    not shown", _reveal_advice(added)
    return f"endpoint  {added.pointer.endpoint_id}\nref       {added.pointer.secret_ref}\n{secret}\n{advice}"


def _public_key_advice(added: AddedEndpoint) -> str:
    return (
        "Give this public key to the receiver. To print it again, run\n"
        f"  hookseal endpoint public-key {_options_of(added)}"
    )


def _options_of(added: AddedEndpoint) -> str:
    return f"--tenant {added.pointer.tenant_id} --endpoint {added.pointer.endpoint_id}"


def _reveal_advice(added: AddedEndpoint) -> str:
    return (
        "The secret is printed only on a terminal. To get it, run\n"
        f"  hookseal secret reveal {_options_of(added)} --secret-out FILE"
    )
