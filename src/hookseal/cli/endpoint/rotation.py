"""`hookseal endpoint rotate | rollback | end-overlap | rotation-status`: the secrets that sign for an endpoint."""

import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.admin import Admin, Canary, Rotation, RotationSchedule, RotationStatus, SigningSecrets
from hookseal.cli.context import CHANGES, READS, AdminSession, admin_session, call, operator_name
from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.shared.moments import lasting
from hookseal.cli.shared.output import Json, emit, fields_of, note, plain, rfc3339, secret_text
from hookseal.cli.shared.runtime import start
from hookseal.cli.shared.secret_files import SecretOutput, for_receiver, read_secret_text
from hookseal.config.settings import Settings
from hookseal.errors import HooksealError, InDoubt, Malformed, Unavailable, with_advice
from hookseal.ground.ids import plural
from hookseal.ground.literals import Lead, VerdictName
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.overlap import MAX_OVERLAP_SECONDS
from hookseal.secrets.core.signing import generate_signing_secret

_OVERLAP_HELP: Final = (
    f"How long both secrets sign, as 24h or 30m, at most {MAX_OVERLAP_SECONDS // 86_400}d; 0 revokes every older "
    "secret. Default: the setting. A number without a unit has seconds."
)
_VERDICTS: Final[Mapping[VerdictName, str]] = {
    "switched": "has switched",
    "not_switched": "has not switched",
    "does_not_verify": "accepts any signature, so that nothing is proven",
    "no_answer": "gave no answer",
}
_OUT_HELP: Final = "Write the secret to this new file (mode 0600); for ed25519 it gets the public key."

Overlap = Annotated[str | None, typer.Option(metavar="DURATION", help=_OVERLAP_HELP)]
Expected = Annotated[int | None, typer.Option(help="Make the change only if the endpoint is at this generation.")]
Force = Annotated[
    bool, typer.Option("--force", help="Rotate even while an overlap runs, and retire its previous secret.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for requests from before the change.")]


def rotate(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    overlap: Overlap = None,
    rotation_id: Annotated[
        str | None,
        typer.Option(help="An id for this rotation: the same id again rotates nothing, and prints the same answer."),
    ] = None,
    expect_generation: Expected = None,
    scheme: Annotated[Scheme | None, typer.Option(help="standard, svix or x-webhook: the scheme from now on.")] = None,
    algorithm: Annotated[Algorithm | None, typer.Option(help="hmac or ed25519: the algorithm from now on.")] = None,
    lead: Annotated[
        Lead | None,
        typer.Option(
            metavar="WHICH", help="x-webhook: which secret signs the plain header in an overlap, previous or current."
        ),
    ] = None,
    secret_file: Annotated[
        str | None, typer.Option(help="A private file with the secret to use, in place of a new one; - is stdin.")
    ] = None,
    secret_out: Annotated[Path | None, typer.Option(help=_OUT_HELP)] = None,
    print_secret: Annotated[
        bool, typer.Option("--print-secret", help="Print the secret even to a pipe or as JSON.")
    ] = False,
    force: Force = False,
    no_wait: NoWait = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then send the receiver two pings, which show whether it has switched.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give the endpoint a new signing secret; during the overlap both the new and the old one sign.

    Without --overlap the setting SECRETS_ROTATION_OVERLAP_SECONDS says how long that is.
    --overlap 0 revokes every older secret at once, and waits until no request with one of them can begin any more.

    Example: hookseal endpoint rotate --tenant acme --endpoint ENDPOINT_ID --overlap 24h --secret-out new.secret
    """
    overlap_seconds = lasting(overlap, "s", "overlap")
    settings = start(CHANGES)
    own_secret = None if secret_file is None else SecretMaterial(read_secret_text(secret_file).encode())
    secret = generate_signing_secret(algorithm or Algorithm.HMAC) if own_secret is None else own_secret
    named = str(uuid.uuid4()) if rotation_id is None else rotation_id
    output, receiver_secret = SecretOutput(secret_out, print_it=print_secret, as_json=as_json), for_receiver(secret)

    async def step(admin: Admin) -> Rotation:
        return await admin.secrets.rotate(
            tenant_id=tenant,
            endpoint_id=endpoint,
            actor=operator_name(),
            overlap_seconds=overlap_seconds,
            rotation_id=named,
            expect_generation=expect_generation,
            scheme=scheme,
            algorithm=algorithm,
            lead=lead,
            secret=own_secret,
            drawn=secret,
            force=force,
            wait=None,
        )

    with admin_session(settings) as session:
        with output.keeping(receiver_secret) as text:
            rotated = _rotate_or_doubt(session, step, named)
            of_receiver = SecretMaterial(rotated.public_key.encode()) if rotated.public_key else rotated.secret
            printed = text if of_receiver == receiver_secret else output.keep_instead(of_receiver)
        older_claims = _older_claims(session, rotated, wait=not no_wait)
        canary = _canary(session, rotated) if verify else None
        changes = {"secret": None if rotated.public_key else printed, "older_claims": older_claims, "canary": canary}
        emit(
            fields_of(rotated) | changes,
            as_json=as_json,
            text=lambda: _rotated_text(
                rotated, secret=printed, file=output.path, older_claims=older_claims, canary=canary
            ),
        )
        _require_known(older_claims)


def rollback(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    overlap: Overlap = None,
    expect_generation: Expected = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Make the previous secret current again while its overlap runs; then both sign for another overlap.

    Without --overlap the setting SECRETS_ROTATION_OVERLAP_SECONDS says how long that is.
    A second rollback undoes the first. --expect-generation refuses one that somebody else has made already.

    Example: hookseal endpoint rollback --tenant acme --endpoint ENDPOINT_ID
    """
    overlap_seconds = lasting(overlap, "s", "overlap")

    async def step(admin: Admin) -> SigningSecrets:
        return await admin.secrets.roll_back(
            tenant_id=tenant,
            endpoint_id=endpoint,
            actor=operator_name(),
            overlap_seconds=overlap_seconds,
            expect_generation=expect_generation,
            wait=None,
        )

    _move(start(CHANGES), step, wait=not no_wait, as_json=as_json)


def end_overlap(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    when_switched: Annotated[
        bool, typer.Option("--when-switched", help="Ask the receiver first; unless it has switched, exit 1.")
    ] = False,
    expect_generation: Expected = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Retire the previous secret now, and wait until no request signed with it can begin any more.

    With --when-switched it sends the receiver two pings, as `hookseal endpoint rotation-status --probe` does, and
    prints what that prints.

    Example: hookseal endpoint end-overlap --tenant acme --endpoint ENDPOINT_ID --when-switched
    """
    if when_switched and expect_generation is not None:
        raise Malformed(
            "--when-switched ends only the overlap that it asks about: leave out --expect-generation",
            field="expect_generation",
        )
    if when_switched:
        _end_when_switched(start(CHANGES), tenant, endpoint, wait=not no_wait, as_json=as_json)
        return

    async def step(admin: Admin) -> SigningSecrets:
        return await admin.secrets.end_overlap(
            tenant_id=tenant,
            endpoint_id=endpoint,
            actor=operator_name(),
            expect_generation=expect_generation,
            wait=None,
        )

    _move(start(CHANGES), step, wait=not no_wait, as_json=as_json)


def rotation_status(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    probe: Annotated[bool, typer.Option("--probe", help="Ask the receiver now whether it has switched.")] = False,
    as_json: Json = False,
) -> None:
    """Show the secrets that sign for an endpoint, the rest of the overlap, the schedule and the last ten rotations.

    --probe asks the receiver by two pings whether it has switched to the new secret, and exits with 0 whatever the
    answer is. The JSON has the last answer at this generation as `canary`: switched, not_switched, does_not_verify (it
    accepts any signature, so nothing is proven) or no_answer. `older_claims` counts requests in flight from before the
    last change: they may use an older secret.

    It changes no secret. `hookseal endpoint end-overlap --when-switched` ends the overlap if the receiver has switched.

    Example: hookseal endpoint rotation-status --tenant acme --endpoint ENDPOINT_ID --probe
    """
    if probe:
        status = call(
            start(CHANGES),
            lambda admin: admin.secrets.check_switch(
                tenant_id=tenant, endpoint_id=endpoint, actor=operator_name(), end_overlap=False
            ),
        )
    else:
        status = call(start(READS), lambda admin: admin.secrets.status(tenant_id=tenant, endpoint_id=endpoint))
    emit(status, as_json=as_json, text=lambda: _status_text(status, status.older_claims))


def _end_when_switched(settings: Settings, tenant: str, endpoint: str, *, wait: bool, as_json: bool) -> None:
    with admin_session(settings) as session:
        status = session.run(
            lambda admin: admin.secrets.check_switch(
                tenant_id=tenant, endpoint_id=endpoint, actor=operator_name(), end_overlap=True
            )
        )
        older_claims = _count(session, status, wait=wait) if status.overlap_ended else status.older_claims
        facts = fields_of(status) | {"older_claims": older_claims}
        emit(facts, as_json=as_json, text=lambda: _status_text(status, older_claims))
    _require_known(older_claims)
    if not status.overlap_ended:
        raise typer.Exit(1)


def _rotate_or_doubt(session: AdminSession, step: Callable[[Admin], Awaitable[Rotation]], rotation_id: str) -> Rotation:
    """Rotate. Raises `InDoubt`, also after an interrupt, with the command that finds out whether it was done."""
    try:
        return session.run(step)
    except (InDoubt, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted: the rotation may have been made all the same"
    raise InDoubt(
        f"{reason}; run it again with --rotation-id {rotation_id}, and another --secret-out FILE if "
        "one was given: it prints whether the rotation was made"
    )


def _move(settings: Settings, step: Callable[[Admin], Awaitable[SigningSecrets]], *, wait: bool, as_json: bool) -> None:
    with admin_session(settings) as session:
        after = session.run(step)
        older_claims = _older_claims(session, after, wait=wait)
        emit(
            fields_of(after) | {"older_claims": older_claims},
            as_json=as_json,
            text=lambda: "\n".join(_signing_lines(after, older_claims)),
        )
    _require_known(older_claims)


def _older_claims(session: AdminSession, after: SigningSecrets, *, wait: bool) -> int | None:
    """Return how many older claims may sign with a retired secret: 0 if none was retired."""
    return _count(session, after, wait=wait) if after.older_claims is None else after.older_claims


def _count(session: AdminSession, after: SigningSecrets | RotationStatus, *, wait: bool) -> int | None:
    """Return how many older claims are left: 0 after waiting; None, with the reason printed, if that is unknown.

    The change is committed by now, so the command must print it whatever happens here.
    """
    try:
        return session.run(
            lambda admin: admin.secrets.older_claims(
                tenant_id=after.tenant_id,
                endpoint_id=after.endpoint_id,
                generation=after.generation,
                wait=wait,
                report=_Progress(),
            )
        )
    except HooksealError as error:
        reason = with_advice(error)
    except KeyboardInterrupt:
        reason = "interrupted"
    note(f"changed, but older claims may still be in flight: {reason}")
    return None


def _require_known(older_claims: int | None) -> None:
    """Return if the number is known; else end the command with the exit code for a server that does not answer."""
    if older_claims is None:
        raise typer.Exit(Unavailable.exit_code)


class _Progress:
    """Prints the number on a terminal whenever it changes."""

    _last = 0

    def __call__(self, older_claims: int) -> None:
        if older_claims != self._last and sys.stderr.isatty():
            note(f"waiting for {plural(older_claims, 'request', 'requests')} from before the change", prefix="")
        self._last = older_claims


def _canary(session: AdminSession, rotated: Rotation) -> Canary | dict[str, object]:
    """Ask the receiver whether it has switched; return its answer, or why it is unknown. The rotation stays made."""
    try:
        return session.run(
            lambda admin: admin.secrets.probe(
                tenant_id=rotated.tenant_id,
                endpoint_id=rotated.endpoint_id,
                actor=operator_name(),
                expect_generation=rotated.generation,
            )
        )
    except HooksealError as error:
        reason = with_advice(error)
    except KeyboardInterrupt:
        reason = "interrupted"
    note(f"rotated, but whether the receiver has switched is not known: {reason}")
    unknown = dict.fromkeys(("verdict", "status", "control_status", "sent_at"))
    return unknown | {"detail": reason, "generation": rotated.generation}


def _rotated_text(
    rotated: Rotation,
    *,
    secret: str | None,
    file: Path | None,
    older_claims: int | None,
    canary: Canary | dict[str, object] | None,
) -> str:
    """Return a rotation as text; `secret` may be printed, `file` has what the receiver gets."""
    options = f"--tenant {rotated.tenant_id} --endpoint {rotated.endpoint_id}"
    status = f"hookseal endpoint rotation-status {options}"
    lines = [*_signing_lines(rotated, older_claims), f"rotation   {rotated.rotation_id}"]
    if rotated.public_key:
        also_in_file = [] if file is None else [f"           also in {file}"]
        lines += [f"public key {rotated.public_key}", *also_in_file, "Give the public key to the receiver."]
    elif secret is not None:
        lines += [secret_text("secret    ", secret, options), "Give the secret to the receiver."]
    elif rotated.secret is None:
        lines += ["secret     not shown: this version is not the active one any more"]
    elif file is not None:
        lines += [f"secret     in {file}", "Give the secret to the receiver."]
    else:
        lines += ["secret     not shown. To get it, run", f"  hookseal secret reveal {options} --secret-out FILE"]
    if rotated.repeated:
        lines += ["This rotation was made before. To see what signs now, run", f"  {status}"]
    elif rotated.previous_secret_ref is not None:
        end = f"hookseal endpoint end-overlap {options} --when-switched"
        lines += ["Once the receiver has switched, run", f"  {end}"]
    if isinstance(canary, Canary):
        lines.append(f"receiver   {_canary_text(canary)}")
    elif canary is not None:
        lines.append(f"receiver   not known: {plain(str(canary['detail']))}")
    return "\n".join(lines)


def _signing_lines(after: SigningSecrets, older_claims: int | None) -> list[str]:
    """Return which secrets sign now, and whether a request with an older secret may still be sent."""
    expires_at = after.previous_secret_expires_at
    if after.previous_secret_ref is not None and expires_at is not None:
        previous = f"{after.previous_secret_ref} until {rfc3339(expires_at)}"
    elif older_claims == 0:
        previous = "none: no request signed with an older secret can begin any more"
    else:
        some = "some requests" if older_claims is None else plural(older_claims, "request", "requests")
        previous = f"none, but {some} from before the change may still be sent with an older secret"
    return [f"current    {after.secret_ref}", f"previous   {previous}", f"generation {after.generation}"]


def _canary_text(canary: Canary) -> str:
    return f"{_VERDICTS[canary.verdict]}, {rfc3339(canary.sent_at)}: {plain(canary.detail or '-')}"


def _status_text(status: RotationStatus, older_claims: int | None) -> str:
    lines = (
        ["STALE         an older copy replaced the row, so nothing is signed: run `hookseal restore check`"]
        if status.stale
        else []
    )
    lines.append(f"current       {status.secret_ref or '-'} ({status.scheme}, {status.algorithm})")
    if status.overlapping and status.previous_secret_expires_at is not None:
        until = f"until {rfc3339(status.previous_secret_expires_at)}, {_duration(status.seconds_left or 0)} from now"
        how = f"{status.previous_scheme}, {status.previous_algorithm}"
        lines += [f"previous      {status.previous_secret_ref} ({how})", f"overlap       {until}"]
        if Scheme.X_WEBHOOK in {status.scheme, status.previous_scheme}:
            lines.append(f"lead          the {status.lead} secret signs the plain header of {Scheme.X_WEBHOOK}")
    else:
        ended = ": the receiver has switched, so the overlap was ended" if status.overlap_ended else ""
        lines.append(f"previous      none signs{ended}")
    lines.append(f"generation    {status.generation}")
    lines.append(f"older claims  {'not known' if older_claims is None else older_claims}")
    lines += [] if status.schedule is None else [f"schedule      {_schedule_text(status.schedule)}"]
    receiver = "not asked at this generation; --probe asks it" if status.canary is None else _canary_text(status.canary)
    lines.append(f"receiver      {receiver}")
    lines += [
        f"rotation      {rfc3339(one.created_at)}  version {one.version}  {one.rotation_id}" for one in status.rotations
    ]
    return "\n".join(lines)


def _schedule_text(schedule: RotationSchedule) -> str:
    every = f"every {schedule.rotate_every_days} d"
    if schedule.announced_at is None or schedule.rotates_at is None:
        return f"{every}; next {rfc3339(schedule.due_at)}, not announced yet"
    return f"{every}; announced {rfc3339(schedule.announced_at)}, rotates {rfc3339(schedule.rotates_at)}"


def _duration(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
