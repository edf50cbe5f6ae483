"""`hookseal endpoint add | update`: the settings of an endpoint."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.admin import AddedEndpoint, UpdatedEndpoint
from hookseal.cli.context import CHANGES, call, operator_name
from hookseal.cli.endpoint.options import Endpoint, EndpointOptions, Tenant, with_options
from hookseal.cli.shared.output import Json, emit, fields_of, plain, secret_text, value_text
from hookseal.cli.shared.runtime import start
from hookseal.cli.shared.secret_files import SecretOutput, for_receiver, read_secret_text
from hookseal.ground.literals import Lead
from hookseal.ground.wire import Algorithm
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import generate_signing_secret

_EVERY: Final = ("*",)


@with_options
def add(
    *,
    tenant: Tenant,
    options: EndpointOptions,
    secret_file: Annotated[
        str | None, typer.Option(help="A private file with the secret to use, in place of a new one; - is stdin.")
    ] = None,
    secret_out: Annotated[
        Path | None,
        typer.Option(help="Write the secret to this new file (mode 0600); for ed25519 it gets the public key."),
    ] = None,
    print_secret: Annotated[
        bool,
        typer.Option(
            "--print-secret", help="Print the secret even to a pipe or as JSON; for ed25519 only the public key."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Add an endpoint with a signing secret, which is stored encrypted.

    Without --event-type it gets every event of the tenant, also of types to come, and the command says so.

    On a terminal it prints the secret for the receiver. In a script use --secret-out FILE or --print-secret. Later
    `hookseal secret reveal` gives the secret again.

    Example: hookseal endpoint add --tenant acme --url https://example.com/hooks --event-type 'invoice.*'
    """
    settings, arguments = start(CHANGES), options.arguments(secret_file=secret_file)
    if secret_file is None:
        secret = generate_signing_secret(options.algorithm or Algorithm.HMAC)
    else:
        secret = SecretMaterial(read_secret_text(secret_file).encode())
    arguments.setdefault("event_types", _EVERY)
    # A new endpoint has no other headers that could stay.
    arguments["headers"] = arguments.pop("change_headers", None) or arguments.get("headers")
    with SecretOutput(secret_out, print_it=print_secret, as_json=as_json).keeping(for_receiver(secret)) as text:
        added = call(
            settings,
            lambda admin: admin.endpoints.add(tenant_id=tenant, actor=operator_name(), secret=secret, **arguments),
        )
    secret_shown = text if added.public_key is None else None
    emit(
        fields_of(added) | {"secret": secret_shown},
        as_json=as_json,
        text=lambda: _added_text(added, secret_shown, secret_out, chosen=bool(options.event_type)),
    )


@with_options
def update(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    options: EndpointOptions,
    lead: Annotated[
        Lead | None,
        typer.Option(
            metavar="WHICH", help="x-webhook: which secret signs the plain header in an overlap, previous or current."
        ),
    ] = None,
    expect_generation: Annotated[
        int | None,
        typer.Option(
            help="Make the change only at this generation. A change of url, lead, headers, TLS or secrets raises it."
        ),
    ] = None,
    keep_headers: Annotated[
        bool,
        typer.Option(
            "--keep-headers",
            help="With --url: keep its headers and its client certificate, also at another scheme, host or port.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Change the given settings of an endpoint, all of them or none, and leave the others.

    A URL of another scheme, host or port takes along only what you give with it: other headers and the client
    certificate are removed, and named, unless you add --keep-headers.

    Example: hookseal endpoint update --tenant acme --endpoint ENDPOINT_ID --url https://example.com/new --timeout 8s
    """
    settings, changes = start(CHANGES), options.arguments()
    if lead is not None:
        changes["lead"] = lead
    updated = call(
        settings,
        lambda admin: admin.endpoints.update(
            tenant_id=tenant,
            endpoint_id=endpoint,
            actor=operator_name(),
            expect_generation=expect_generation,
            keep_headers=keep_headers,
            **changes,
        ),
    )
    emit(updated, as_json=as_json, text=lambda: _updated_text(updated))


def _added_text(added: AddedEndpoint, printed: str | None, file: Path | None, *, chosen: bool) -> str:
    options = f"--tenant {added.tenant_id} --endpoint {added.endpoint_id}"
    advice = "Give the secret to the receiver."
    if added.public_key is not None:
        secret = f"public    {added.public_key}" + ("" if file is None else f"\n          also in {file}")
        advice = (
            f"Give this public key to the receiver. To print it again, run\n  hookseal endpoint public-key {options}"
        )
    elif printed is not None:
        secret = secret_text("secret   ", printed, options)
    elif file is not None:
        secret = f"secret    in {file}"
    else:
        secret = "secret    not shown"  # noqa: S105 -- it is none
        advice = (
            "The secret is printed only on a terminal. To get it, run\n"
            f"  hookseal secret reveal {options} --secret-out FILE"
        )
    every = (
        f"gets      every event of {added.tenant_id}, also of types to come. To choose, run\n"
        f"  hookseal endpoint update {options} --event-type 'invoice.*'\n"
    )
    gets = "" if chosen else every
    return f"endpoint  {added.endpoint_id}\n{gets}ref       {added.secret_ref}\n{secret}\n{advice}"


def _updated_text(updated: UpdatedEndpoint) -> str:
    if not updated.changed:
        return f"endpoint {updated.endpoint_id} has these settings already: nothing was changed"
    lines = [f"{name}: {_change(name, updated.before[name], updated.after[name])}" for name in updated.changed]
    if updated.dropped:
        lines.append(
            f"removed, because the url is of another server: {', '.join(updated.dropped)}. Give them anew, or use "
            "--keep-headers the next time"
        )
    return "\n".join([f"endpoint {updated.endpoint_id} is changed; generation {updated.generation}", *lines])


def _change(name: str, before: object, after: object) -> str:
    was, is_now = _value(name, before), _value(name, after)
    return f"{is_now}, with other values" if was == is_now else f"{was} -> {is_now}"


def _value(name: str, fact: object) -> str:
    return "; ".join(tls_lines(fact)) if name == "tls" and fact is not None else value_text(fact)


def tls_lines(identity: object) -> list[str]:
    """Return one line for each certificate of a TLS identity."""
    if not isinstance(identity, dict):
        return []
    client = identity["client_certificate"]
    listed = [("client certificate", client)] if client is not None else []
    listed += [("authority", each) for each in identity["authorities"]]
    return [
        f"{name}: {plain(each['subject'] or '-')}, until {each['expires_at']}, sha256 {each['sha256']}"
        for name, each in listed
    ]
