"""The output of the commands of rotation: JSON in one shape for all, and text."""

from pathlib import Path

from hookseal.cli.shared.output import rfc3339
from hookseal.ground.ids import EndpointId, TenantId, plural
from hookseal.ground.pointer import Pointer
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult


def shape(
    tenant: TenantId, endpoint_id: EndpointId, after: RotationResult | Pointer, *, older_claims: int | None
) -> dict[str, object]:
    """Return the secrets that sign now, by reference; `older_claims` is None if that is not known."""
    rotated = after if isinstance(after, RotationResult) else None
    return {
        "tenant_id": tenant,
        "endpoint_id": endpoint_id,
        "secret_ref": after.secret_ref,
        "previous_secret_ref": after.previous_secret_ref,
        "previous_secret_expires_at": after.previous_secret_expires_at,
        "generation": after.generation,
        "rotation_id": None if rotated is None else rotated.rotation_id,
        "secret": None,
        "public_key": None if rotated is None else rotated.public_key,
        "older_claims": older_claims,
    }


def rotated_text(
    wanted: RotationRequest,
    rotated: RotationResult,
    *,
    secret: str | None,
    file: Path | None,
    older_claims: int | None,
    canary: str | None,
) -> str:
    """Return a rotation as text; `secret` may be printed, `file` has what the receiver gets."""
    options = f"--tenant {wanted.tenant_id} --endpoint {wanted.endpoint_id}"
    status = f"hookseal endpoint rotation-status {options}"
    lines = [*signing_lines(rotated, older_claims), f"rotation   {rotated.rotation_id}"]
    if rotated.public_key:
        lines += _public_lines(rotated.public_key, file)
    else:
        lines += _secret_lines(rotated, secret, file, options)
    if rotated.before is None:
        lines.append(f"This rotation was made before. What signs now: {status}")
    elif rotated.previous_secret_ref is not None:
        lines.append(f"Once the receiver has switched: {status} --end-when-switched")
    return "\n".join(lines if canary is None else [*lines, f"canary     {canary}"])


def signing_lines(after: RotationResult | Pointer, older_claims: int | None) -> list[str]:
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


def _public_lines(public_key: str, file: Path | None) -> list[str]:
    kept = [] if file is None else [f"           also in {file}"]
    return [f"public key {public_key}", *kept, "Give the public key to the receiver."]


def _secret_lines(rotated: RotationResult, secret: str | None, file: Path | None, options: str) -> list[str]:
    if secret is not None:
        return [f"secret     {secret}", "Give the secret to the receiver."]
    if rotated.secret is None:
        return ["secret     not shown: this version is not the active one any more"]
    if file is not None:
        return [f"secret     in {file}", "Give the secret to the receiver."]
    return ["secret     not shown. To get it, run", f"  hookseal secret reveal {options} --secret-out FILE"]
