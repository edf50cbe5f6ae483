"""`hookseal secret reveal`: what an endpoint's requests are signed with now, for whoever hands it to the receiver."""

from pathlib import Path
from typing import Annotated

import typer

from hookseal.cli.endpoint_options import Endpoint, Tenant
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit
from hookseal.cli.runtime import run, start
from hookseal.cli.secret_files import SecretOutput
from hookseal.config.settings import Settings
from hookseal.ground import ids
from hookseal.ground.errors import Malformed
from hookseal.operations.reveal import Revealed
from hookseal.operations.reveal import reveal as revealed
from hookseal.secrets.material import SecretMaterial


def reveal(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    secret_out: Annotated[Path | None, typer.Option(help="Write it to this new file (mode 0600).")] = None,
    print_secret: Annotated[bool, typer.Option("--print-secret", help="Print it even to a pipe or as JSON.")] = False,
    as_json: Json = False,
) -> None:
    """Give out the current secret of an endpoint, for instance one that a rotation by schedule made; it is audited.

    Of an ed25519 key pair it is the public key, which is all that a receiver needs.

    Example: hookseal secret reveal --tenant acme --endpoint ID --secret-out current.secret
    """
    owner, wanted = ids.tenant_id(tenant), ids.endpoint_id(endpoint)
    settings = start(NEEDS)
    output = SecretOutput(secret_out, print_it=print_secret, as_json=as_json)
    _require_way_out(output)
    with output.reserving():  # before it is asked for: then it can be given out
        found = run(_revealed(settings, owner, wanted))
        text = output.keep_instead(_handed_out(found))
    secret = None if found.secret is None else text
    emit(_shape(found, secret), as_json=as_json, text=lambda: _text(found, text, secret_out))


def _require_way_out(output: SecretOutput) -> None:
    # Before it is asked for: what is not given out must not be on record as revealed.
    if output.goes_nowhere:
        raise Malformed(
            "there is no way out for the secret: add --secret-out FILE, or --print-secret to print it here; "
            "a public key is shown by `hookseal endpoint public-key`",
            field="secret_out",
        )


async def _revealed(settings: Settings, tenant: ids.TenantId, wanted: ids.EndpointId) -> Revealed:
    async with operating(settings) as operator:
        return await revealed(operator, tenant, wanted)


def _handed_out(found: Revealed) -> SecretMaterial:
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
