"""`hookseal endpoint rotate | rollback | end-overlap`: change the secrets that sign for an endpoint."""

import uuid
from collections.abc import Awaitable, Callable

from hookseal.cli.endpoint import canary
from hookseal.cli.endpoint import rotation_options as options
from hookseal.cli.endpoint.older_claims import older_claims, require_known
from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.endpoint.rotation_output import rotated_text, shape, signing_lines
from hookseal.cli.shared.operating import NEEDS, OperatorSession, operator_session
from hookseal.cli.shared.output import Json, emit, note
from hookseal.cli.shared.runtime import start
from hookseal.cli.shared.secret_files import SecretOutput, for_receiver
from hookseal.config.settings import Settings
from hookseal.errors import HooksealError, InDoubt
from hookseal.ground import ids
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint import rotation
from hookseal.operations.operator import Operator
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.endpoint.canary_results import Evidence
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult


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
    """Give the endpoint a new signing secret; during the overlap both the new and the old one sign.

    --overlap 0 revokes every older secret at once, and waits until no request with one of them can begin any more.

    Example: hookseal endpoint rotate --tenant acme --endpoint ID --overlap 86400 --secret-out new.secret
    """
    settings = start(NEEDS)
    wanted = RotationRequest(
        tenant_id=ids.owner_id(tenant),
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
    with operator_session(settings) as session:
        _rotate_and_answer(settings, session, wanted, output, wait=not no_wait, verify=verify, as_json=as_json)


def rollback(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    overlap: options.Overlap = None,
    expect_generation: options.Expected = None,
    no_wait: options.NoWait = False,
    as_json: Json = False,
) -> None:
    """Make the previous secret current again while its overlap runs; then both sign for another overlap.

    A second rollback undoes the first. --expect-generation refuses one that somebody else has made already.

    Example: hookseal endpoint rollback --tenant acme --endpoint ID
    """
    settings = start(NEEDS)
    seconds = options.overlap_seconds(settings, overlap)

    async def change(operator: Operator) -> Pointer:
        return await rotation.roll_back(
            operator,
            tenant=ids.owner_id(tenant),
            endpoint_id=ids.endpoint_id(endpoint),
            overlap_seconds=seconds,
            expect_generation=expect_generation,
        )

    _move_and_answer(settings, change, wait=not no_wait, as_json=as_json)


def end_overlap(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    expect_generation: options.Expected = None,
    no_wait: options.NoWait = False,
    as_json: Json = False,
) -> None:
    """Retire the previous secret now, and wait until no request signed with it can begin any more.

    Example: hookseal endpoint end-overlap --tenant acme --endpoint ID
    """

    async def change(operator: Operator) -> Pointer:
        return await rotation.end_overlap(
            operator,
            tenant=ids.owner_id(tenant),
            endpoint_id=ids.endpoint_id(endpoint),
            expect_generation=expect_generation,
        )

    _move_and_answer(start(NEEDS), change, wait=not no_wait, as_json=as_json)


def _rotate_and_answer(
    settings: Settings,
    session: OperatorSession,
    wanted: RotationRequest,
    output: SecretOutput,
    *,
    wait: bool,
    verify: bool,
    as_json: bool,
) -> None:
    drawn = for_receiver(wanted.secret)
    with output.keeping(drawn) as text:
        rotated = _rotate_or_doubt(session, wanted)
        for_output = SecretMaterial(rotated.public_key.encode()) if rotated.public_key else rotated.secret
        shown = text if for_output == drawn else output.keep_instead(for_output)
    left = _count_older_claims(session, wanted, rotated, wait=wait, retired=wanted.force)
    sent, said = _canary(settings, session, wanted, rotated) if verify else (None, None)
    answer = shape(wanted.tenant_id, wanted.endpoint_id, rotated, older_claims=left)
    emit(
        answer | {"secret": None if rotated.public_key else shown, "canary": sent},
        as_json=as_json,
        text=lambda: rotated_text(wanted, rotated, secret=shown, file=output.path, older_claims=left, canary=said),
    )
    require_known(left)


def _canary(
    settings: Settings, session: OperatorSession, wanted: RotationRequest, rotated: RotationResult
) -> tuple[dict[str, object], str]:
    """Ask the receiver whether it has switched; return the answer as JSON and as text. The rotation stays made."""

    async def sent(operator: Operator) -> Evidence:
        return await canary.probed(
            settings, operator, wanted.tenant_id, wanted.endpoint_id, expect_generation=rotated.generation
        )

    try:
        found = session.run(sent)
    except HooksealError as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted"
    else:
        return canary.shape(found), canary.text(found)
    note(f"rotated, but whether the receiver has switched is not known: {reason}")
    return canary.unknown(reason, generation=rotated.generation), f"not known: {reason}"


def _rotate_or_doubt(session: OperatorSession, wanted: RotationRequest) -> RotationResult:
    """Rotate. Raises `InDoubt`, also after an interrupt, with the command that finds out whether it was done."""
    try:
        return session.run(lambda operator: rotation.rotate_secret(operator, wanted))
    except (InDoubt, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted: the rotation may have been made all the same"
    raise InDoubt(
        f"{reason}; run it again with --rotation-id {wanted.rotation_id}, and another --secret-out FILE if "
        "one was given: it prints whether the rotation was made"
    )


def _count_older_claims(
    session: OperatorSession,
    of: RotationRequest | Pointer,
    after: RotationResult | Pointer,
    *,
    wait: bool,
    retired: bool = False,
) -> int | None:
    """Return how many older claims may sign with a retired secret; None, with the reason printed, if unknown.

    `retired`: a version may have been retired although an overlap runs now.
    """
    if after.previous_secret_ref is not None and not retired:
        return 0  # an overlap: the secrets of older claims are still valid
    return older_claims(session, of.tenant_id, of.endpoint_id, after.generation, wait=wait)


def _move_and_answer(
    settings: Settings, change: Callable[[Operator], Awaitable[Pointer]], *, wait: bool, as_json: bool
) -> None:
    with operator_session(settings) as session:
        after = session.run(change)
        left = _count_older_claims(session, after, after, wait=wait)
        emit(
            shape(after.tenant_id, after.endpoint_id, after, older_claims=left),
            as_json=as_json,
            text=lambda: "\n".join(signing_lines(after, left)),
        )
    require_known(left)
