"""`hookseal endpoint rotate | rollback | end-overlap`: which secrets sign for an endpoint from now on."""

import sys
import uuid
from collections.abc import Awaitable, Callable

from hookseal.cli import canary
from hookseal.cli import rotation_options as options
from hookseal.cli.endpoint_options import Endpoint, Tenant
from hookseal.cli.older_claims import older_claims, require_known
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit
from hookseal.cli.rotation_shown import rotated_text, shape, signing_lines
from hookseal.cli.runtime import run, start
from hookseal.cli.secret_files import SecretOutput, handed_out
from hookseal.config.settings import Settings
from hookseal.ground import ids
from hookseal.ground.errors import HooksealError, InDoubt
from hookseal.ground.pointer import Pointer
from hookseal.operations import rotation
from hookseal.operations.operator import Operator
from hookseal.secrets.evidence import Evidence
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.rotation import Rotated, Wanted


def rotate(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    overlap: options.Overlap = None,
    rotation_id: options.RotationId = None,
    expect_generation: options.Expected = None,
    scheme: options.NewScheme = None,
    algorithm: options.NewAlgorithm = None,
    lead: options.Lead = None,
    secret_file: options.SecretFile = None,
    secret_out: options.SecretOut = None,
    print_secret: options.PrintSecret = False,
    force: options.Force = False,
    no_wait: options.NoWait = False,
    verify: options.Verify = False,
    as_json: Json = False,
) -> None:
    """Give the endpoint a new signing secret; the old one signs beside it for the overlap.

    With --overlap 0 every older secret is revoked; it returns once no request signed with one can begin any more.

    Example: hookseal endpoint rotate --tenant acme --endpoint ID --overlap 86400 --secret-out new.secret
    """
    settings = start(NEEDS)
    wanted = Wanted(
        tenant_id=ids.tenant_id(tenant),
        endpoint_id=ids.endpoint_id(endpoint),
        overlap_seconds=options.overlap_seconds(settings, overlap),
        secret=options.new_secret(secret_file, algorithm),
        given=secret_file is not None,
        rotation_id=options.require_rotation_id(rotation_id) or str(uuid.uuid4()),
        expect_generation=expect_generation,
        scheme=scheme,
        algorithm=algorithm,
        lead=options.require_lead(lead),
        force=force,
    )
    output = SecretOutput(secret_out, print_it=print_secret, as_json=as_json)
    _answer(settings, wanted, output, wait=not no_wait, verify=verify, as_json=as_json)


def rollback(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    overlap: options.Overlap = None,
    expect_generation: options.Expected = None,
    no_wait: options.NoWait = False,
    as_json: Json = False,
) -> None:
    """Make the previous secret current again, within its overlap; the newer one signs beside it for an overlap.

    Example: hookseal endpoint rollback --tenant acme --endpoint ID
    """
    settings = start(NEEDS)
    seconds = options.overlap_seconds(settings, overlap)

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
    expect_generation: options.Expected = None,
    no_wait: options.NoWait = False,
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


def _answer(
    settings: Settings, wanted: Wanted, output: SecretOutput, *, wait: bool, verify: bool, as_json: bool
) -> None:
    drawn = handed_out(wanted.secret)
    with output.keeping(drawn) as text:
        rotated = _rotated(settings, wanted)
        for_receiver = SecretMaterial(rotated.public_key.encode()) if rotated.public_key else rotated.secret
        shown = text if for_receiver == drawn else output.keep_instead(for_receiver)
    left = _left(settings, wanted, rotated, wait=wait, retired=wanted.force)
    sent, said = _canary(settings, wanted, rotated) if verify else (None, None)
    answer = shape(wanted.tenant_id, wanted.endpoint_id, rotated, older_claims=left)
    emit(
        answer | {"secret": None if rotated.public_key else shown, "canary": sent},
        as_json=as_json,
        text=lambda: rotated_text(wanted, rotated, secret=shown, file=output.path, older_claims=left, canary=said),
    )
    require_known(left)


def _canary(settings: Settings, wanted: Wanted, rotated: Rotated) -> tuple[dict[str, object], str]:
    """Ask the receiver, and return what it proved, as JSON and for a person. What was rotated stays so."""

    async def sent() -> Evidence:
        async with operating(settings) as operator:
            return await canary.probed(
                settings,
                operator,
                wanted.tenant_id,
                wanted.endpoint_id,
                expect_generation=rotated.generation,
            )

    try:
        found = run(sent())
    except HooksealError as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted"
    else:
        return canary.shape(found), canary.text(found)
    print(
        f"hookseal: rotated, but whether the receiver has switched is not known: {reason}", file=sys.stderr, flush=True
    )
    return canary.unknown(reason, generation=rotated.generation), f"not known: {reason}"


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
    """Return how many older claims are left that sign otherwise, None if that is not known, which has been told.

    `retired` tells that a version may have been retired although an overlap runs now.
    """
    if after.previous_secret_ref is not None and not retired:
        return 0  # an overlap: what older claims sign with still signs
    return older_claims(settings, of.tenant_id, of.endpoint_id, after.generation, wait=wait)


def _moved(settings: Settings, change: Callable[[Operator], Awaitable[Pointer]], *, wait: bool, as_json: bool) -> None:
    async def moved() -> Pointer:
        async with operating(settings) as operator:
            return await change(operator)

    after = run(moved())
    left = _left(settings, after, after, wait=wait)
    emit(
        shape(after.tenant_id, after.endpoint_id, after, older_claims=left),
        as_json=as_json,
        text=lambda: "\n".join(signing_lines(after, left)),
    )
    require_known(left)
