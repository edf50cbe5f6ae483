"""`hookseal endpoint`: where a tenant's webhooks go."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.cli.output import Json, emit
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.cli.secret_files import SecretOutput, read_secret
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher.address import AddressRules
from hookseal.dispatcher.endpoints import MAX_TIMEOUT_MS, MIN_TIMEOUT_MS, NewEndpoint, endpoint_name
from hookseal.dispatcher.url import endpoint_url
from hookseal.ground import ids
from hookseal.ground.errors import Malformed, Refused
from hookseal.operations.endpoints import AddedEndpoint, add_endpoint
from hookseal.secrets.boot import unlock
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.signer import generate_signing_secret

app: Final = typer.Typer(help="Add the endpoints of a tenant.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE, Part.SECRETS})


@app.callback()
def _group() -> None:
    """Add the endpoints of a tenant."""


@app.command()
def add(
    *,
    tenant: Annotated[str, typer.Option(help="Whose endpoint it is.")],
    url: Annotated[str, typer.Option(help="Where to POST: https://host[:port]/path.")],
    event_type: Annotated[list[str], typer.Option(help="What it subscribes to: a type, 'a.*' or '*'. Repeatable.")],
    name: Annotated[str | None, typer.Option(help="A name for people, at most 128 characters.")] = None,
    timeout_ms: Annotated[int, typer.Option(help="How long one request may take, 100 to 20000.")] = 5000,
    secret_file: Annotated[str | None, typer.Option(help="Sign with this secret, not a fresh one; - is stdin.")] = None,
    secret_out: Annotated[Path | None, typer.Option(help="Write the secret to this new file (mode 0600).")] = None,
    print_secret: Annotated[bool, typer.Option("--print-secret", help="Print it even to a pipe or as JSON.")] = False,
    as_json: Json = False,
) -> None:
    """Add an endpoint with its signing secret, sealed.

    The secret is shown this once: on a terminal, in the file of --secret-out, or with --print-secret.

    Example: hookseal endpoint add --tenant acme --url https://example.com/hooks --event-type 'invoice.*'
    """
    settings = start(_NEEDS)
    endpoint = _checked(settings, tenant=tenant, url=url, event_types=event_type, name=name, timeout_ms=timeout_ms)
    if settings.secrets.provider == "dev":
        raise Refused("the provider dev keeps secrets in the memory of one process: set SECRETS_PROVIDER=db")
    secret = read_secret(secret_file) or generate_signing_secret()
    with SecretOutput(secret_out, print_it=print_secret, as_json=as_json).keeping(secret) as shown:
        added = run(_add(settings, endpoint, secret))
    emit(_shape(added, shown), as_json=as_json, text=lambda: _text(added, shown, secret_out))


def _checked(
    settings: Settings, *, tenant: str, url: str, event_types: list[str], name: str | None, timeout_ms: int
) -> NewEndpoint:
    owner = ids.tenant_id(tenant)
    if not MIN_TIMEOUT_MS <= timeout_ms <= MAX_TIMEOUT_MS:
        raise Malformed(f"time-out must be {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS} ms", field="timeout_ms")
    longest = settings.worker.longest_request_seconds * 1000
    if timeout_ms > longest:
        raise Refused(
            f"time-out must be at most {longest} ms, 5 s less than HOOKSEAL_DRAIN_SECONDS: raise that first",
            field="timeout_ms",
        )
    return NewEndpoint(
        tenant_id=owner,
        url=endpoint_url(
            url,
            allow_http=settings.egress.allow_http,
            allowed=AddressRules(settings.egress.allow).networks_for(owner),
        ),
        event_types=tuple(dict.fromkeys(map(ids.subscription, event_types))),
        name=endpoint_name(name),
        timeout_ms=timeout_ms,
    )


async def _add(settings: Settings, endpoint: NewEndpoint, secret: SecretMaterial) -> AddedEndpoint:
    master_key = settings.secrets.master_key
    async with connect(settings.database) as connection:
        await require_schema(connection)
        ring = None if master_key is None else KeyRing(master_key)
        unlocked = await unlock(connection, settings.secrets.provider, ring)
        return await add_endpoint(connection, unlocked, endpoint, secret)


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
        secret, advice = shown, "Give the secret to the receiver; it is not shown again."
    elif file is not None:
        secret, advice = f"in {file}", "Give the secret to the receiver; it is not shown again."
    else:
        secret, advice = (
            "not shown",
            "Nobody saw the secret: standard output is no terminal (--secret-out, --print-secret).",
        )
    return f"endpoint  {added.pointer.endpoint_id}\nref       {added.pointer.secret_ref}\nsecret    {secret}\n{advice}"
