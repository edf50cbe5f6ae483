"""`hookseal secret reveal`: print the current secret of an endpoint, for the receiver."""

from pathlib import Path
from typing import Annotated

import typer

from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.runtime import start
from hookseal.cli.shared.secret_files import SecretOutput
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.operations.secret import Revealed
from hookseal.operations.secret import reveal as reveal_secret
from hookseal.secrets.core.material import SecretMaterial


def reveal(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    secret_out: Annotated[Path | None, typer.Option(help="Write the secret to this new file (mode 0600).")] = None,
    print_secret: Annotated[
        bool, typer.Option("--print-secret", help="Print the secret even to a pipe or as JSON.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the current secret of an endpoint, for example after a rotation on schedule. The audit log records it.

    For ed25519 it prints the public key, which is all that a receiver needs.

    Example: hookseal secret reveal --tenant acme --endpoint ID --secret-out current.secret
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    settings = start(NEEDS)
    output = SecretOutput(secret_out, print_it=print_secret, as_json=as_json)
    _require_destination(output)
    with output.reserving():  # first, so that a secret on record as revealed can be written
        found = operate(settings, lambda operator: reveal_secret(operator, owner, wanted))
        text = output.keep_instead(_for_receiver(found))
    secret = None if found.secret is None else text
    emit(_shape(found, secret), as_json=as_json, text=lambda: _text(found, text, secret_out))


def _require_destination(output: SecretOutput) -> None:
    # First, because a secret that is not printed must not be on record as revealed.
    if output.has_no_destination:
        raise Malformed(
            "the secret would be neither printed nor written: add --secret-out FILE, or --print-secret to print it; "
            "`hookseal endpoint public-key` prints a public key",
            field="secret_out",
        )


def _for_receiver(found: Revealed) -> SecretMaterial:
    return SecretMaterial((found.public_key or "").encode()) if found.secret is None else found.secret


def _shape(found: Revealed, secret: str | None) -> dict[str, object]:
    return {
        "tenant_id": found.pointer.tenant_id,
        "endpoint_id": found.pointer.endpoint_id,
        "secret_ref": found.pointer.secret_ref,
        "scheme": found.pointer.scheme,
        "algorithm": found.pointer.algorithm,
        "generation": found.pointer.generation,
        "secret": secret,
        "public_key": found.public_key,
    }


def _text(found: Revealed, text: str | None, file: Path | None) -> str:
    what = "secret    " if found.public_key is None else "public key"
    shown = f"in {file}" if text is None else text
    return f"current    {found.pointer.secret_ref}\n{what} {shown}"
