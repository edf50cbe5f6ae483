"""`hookseal endpoint rotate | rollback | end-overlap`: which secrets sign for an endpoint from now on."""

import re
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.cli.endpoint_options import Endpoint, Tenant
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, rfc3339
from hookseal.cli.runtime import run, start
from hookseal.cli.secret_files import SecretOutput, read_secret_text
from hookseal.config.settings import Settings
from hookseal.dispatcher import waiting
from hookseal.ground import ids
from hookseal.ground.clock import SystemClock
from hookseal.ground.errors import HooksealError, InDoubt, Malformed, Unavailable
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme
from hookseal.operations import rotation
from hookseal.operations.operator import Operator
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.overlap import MAX_OVERLAP_SECONDS, require_overlap
from hookseal.secrets.rotation import Rotated, Wanted
from hookseal.secrets.signer import generate_signing_secret

_ROTATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LEADS: Final = ("previous", "current")
_OVERLAP_HELP: Final = (
    f"How long both secrets sign, 0 to {MAX_OVERLAP_SECONDS} seconds; 0 revokes every older one. "
    "Default: SECRETS_ROTATION_OVERLAP_SECONDS."
)

Overlap = Annotated[int | None, typer.Option(help=_OVERLAP_HELP)]
Expected = Annotated[int | None, typer.Option(help="Change it only if it is at this generation.")]
Force = Annotated[bool, typer.Option("--force", help="Even if an overlap runs: its previous secret retires.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for claims that began before.")]


def rotate(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    overlap: Overlap = None,
    rotation_id: Annotated[str | None, typer.Option(help="Asked again with this id, it answers the same.")] = None,
    expect_generation: Expected = None,
    scheme: Annotated[Scheme | None, typer.Option(help="Sign in this scheme from now on.")] = None,
    lead: Annotated[str | None, typer.Option(help="x-webhook: whose signature the plain header has.")] = None,
    secret_file: Annotated[str | None, typer.Option(help="Sign with this secret, not a fresh one; - is stdin.")] = None,
    secret_out: Annotated[Path | None, typer.Option(help="Write the secret to this new file (mode 0600).")] = None,
    print_secret: Annotated[bool, typer.Option("--print-secret", help="Print it even to a pipe or as JSON.")] = False,
    force: Force = False,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Give the endpoint a new signing secret; the old one signs beside it for the overlap.

    With --overlap 0 every older secret is revoked, and the command returns once no request signed with one
    can begin any more.

    Example: hookseal endpoint rotate --tenant acme --endpoint ID --overlap 86400 --secret-out new.secret
    """
    settings = start(NEEDS)
    given = None if secret_file is None else SecretMaterial(read_secret_text(secret_file).encode())
    wanted = Wanted(
        tenant_id=ids.tenant_id(tenant),
        endpoint_id=ids.endpoint_id(endpoint),
        overlap_seconds=_overlap(settings, overlap),
        secret=generate_signing_secret() if given is None else given,
        given=given is not None,
        rotation_id=_rotation_id(rotation_id) or str(uuid.uuid4()),
        expect_generation=expect_generation,
        scheme=scheme,
        lead=_lead(lead),
        force=force,
    )
    output = SecretOutput(secret_out, print_it=print_secret, as_json=as_json)
    _answer(settings, wanted, output, wait=not no_wait, as_json=as_json)


def rollback(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    overlap: Overlap = None,
    expect_generation: Expected = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Make the previous secret current again, within its overlap; the newer one signs beside it for an overlap.

    Example: hookseal endpoint rollback --tenant acme --endpoint ID
    """
    settings = start(NEEDS)
    seconds = _overlap(settings, overlap)

    async def change(operator: Operator) -> Pointer:
        return await rotation.roll_back(
            operator,
            tenant=ids.tenant_id(tenant),
            endpoint_id=ids.endpoint_id(endpoint),
            overlap_seconds=seconds,
            expect_generation=expect_generation,
        )

    _moved(settings, change, wait=not no_wait, as_json=as_json)


def end_overlap(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    expect_generation: Expected = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Retire the previous secret now, without a new one; returns once no request signed with it can begin any more.

    Example: hookseal endpoint end-overlap --tenant acme --endpoint ID
    """

    async def change(operator: Operator) -> Pointer:
        return await rotation.end_overlap(
            operator,
            tenant=ids.tenant_id(tenant),
            endpoint_id=ids.endpoint_id(endpoint),
            expect_generation=expect_generation,
        )

    _moved(start(NEEDS), change, wait=not no_wait, as_json=as_json)


async def _rotate(settings: Settings, wanted: Wanted) -> Rotated:
    async with operating(settings) as operator:
        return await rotation.rotate(operator, wanted)


def _answer(settings: Settings, wanted: Wanted, output: SecretOutput, *, wait: bool, as_json: bool) -> None:
    with output.keeping(wanted.secret) as text:
        rotated = _rotated(settings, wanted)
        shown = text if rotated.secret == wanted.secret else output.keep_instead(rotated.secret)
    left = _left(settings, wanted, rotated, wait=wait, retired=wanted.force)
    emit(
        _shape(wanted, rotated) | {"secret": shown, "older_claims": left},
        as_json=as_json,
        text=lambda: _text(rotated, shown, output.path, left),
    )
    _require_known(left)


def _rotated(settings: Settings, wanted: Wanted) -> Rotated:
    try:
        return run(_rotate(settings, wanted))
    except (InDoubt, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted: it may have been done all the same"
    raise InDoubt(
        f"{reason}; run it again with --rotation-id {wanted.rotation_id}, and another --secret-out FILE if "
        "one was given: that tells what became of it"
    )


def _left(
    settings: Settings, of: Wanted | Pointer, after: Rotated | Pointer, *, wait: bool, retired: bool = False
) -> int | None:
    """Return how many older claims are left, none after waiting; None if that is not known, which has been told.

    `retired` tells that a version may have been retired although an overlap runs now.

    What was changed stays changed, so its answer must be given whatever happens here.
    """
    if after.previous_secret_ref is not None and not retired:
        return 0  # an overlap: what older claims sign with still signs

    async def left() -> int:
        async with operating(settings) as operator:
            if wait:
                await rotation.completed(
                    operator,
                    tenant=of.tenant_id,
                    endpoint_id=of.endpoint_id,
                    generation=after.generation,
                    clock=SystemClock(),
                    tell=_Progress(),
                )
            return await waiting.older_claims(operator.connection, of.tenant_id, of.endpoint_id, after.generation)

    try:
        return run(left())
    except HooksealError as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted"
    print(f"hookseal: changed, but older claims may still be in flight: {reason}", file=sys.stderr, flush=True)
    return None


def _require_known(left: int | None) -> None:
    if left is None:
        raise typer.Exit(Unavailable.exit_code)


class _Progress:
    """Tells a person that waits, on standard error, whenever the number changes."""

    _last = 0

    def __call__(self, left: int) -> None:
        if left != self._last and sys.stderr.isatty():
            print(f"waiting for {left} request(s) that began before", file=sys.stderr, flush=True)
        self._last = left


def _moved(settings: Settings, change: Callable[[Operator], Awaitable[Pointer]], *, wait: bool, as_json: bool) -> None:
    async def moved() -> Pointer:
        async with operating(settings) as operator:
            return await change(operator)

    after = run(moved())
    left = _left(settings, after, after, wait=wait)
    shape = _shape(after, after) | {"older_claims": left}
    emit(shape, as_json=as_json, text=lambda: "\n".join(_signing(after, left)))
    _require_known(left)


def _overlap(settings: Settings, seconds: int | None) -> int:
    return settings.secrets.rotation_overlap_seconds if seconds is None else require_overlap(seconds)


def _rotation_id(text: str | None) -> str | None:
    if text is not None and not _ROTATION_ID.fullmatch(text):
        raise Malformed(
            "rotation id must be 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-'", field="rotation_id"
        )
    return text


def _lead(text: str | None) -> str | None:
    if text is not None and text not in _LEADS:
        raise Malformed("lead must be previous or current", field="lead")
    return text


def _shape(of: Wanted | Pointer, after: Rotated | Pointer) -> dict[str, object]:
    return {
        "tenant_id": of.tenant_id,
        "endpoint_id": of.endpoint_id,
        "secret_ref": after.secret_ref,
        "previous_secret_ref": after.previous_secret_ref,
        "previous_secret_expires_at": after.previous_secret_expires_at,
        "generation": after.generation,
        "rotation_id": after.rotation_id if isinstance(after, Rotated) else None,
        "secret": None,
        "public_key": None,
    }


def _text(rotated: Rotated, shown: str | None, file: Path | None, left: int | None) -> str:
    lines = [*_signing(rotated, left), f"rotation   {rotated.rotation_id}"]
    if shown is not None:
        lines += [f"secret     {shown}", "Give the secret to the receiver."]
    elif rotated.secret is None:
        lines.append("secret     not shown: this version is not the active one any more")
    elif file is not None:
        lines += [f"secret     in {file}", "Give the secret to the receiver."]
    else:
        lines.append("secret     not shown: run it again with this --rotation-id and --secret-out FILE to get it")
    return "\n".join(lines)


def _signing(after: Rotated | Pointer, left: int | None) -> list[str]:
    expires_at = after.previous_secret_expires_at
    if after.previous_secret_ref is not None and expires_at is not None:
        previous = f"{after.previous_secret_ref} until {rfc3339(expires_at)}"
    elif left == 0:
        previous = "none: no request signed with an older secret can begin any more"
    else:
        count = "some" if left is None else left
        previous = f"none, but {count} request(s) that began before may still be sent with an older secret"
    return [f"current    {after.secret_ref}", f"previous   {previous}", f"generation {after.generation}"]
