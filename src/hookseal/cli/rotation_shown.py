"""What the commands of rotation answer: as JSON always the same shape, and as text."""

from pathlib import Path

from hookseal.cli.output import rfc3339
from hookseal.ground.counted import counted
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.secrets.rotation import Rotated, Wanted


def shape(
    tenant: TenantId, endpoint_id: EndpointId, after: Rotated | Pointer, *, older_claims: int | None
) -> dict[str, object]:
    """Return what signs now, without a secret; `older_claims` is None if that is not known."""
    rotated = after if isinstance(after, Rotated) else None
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
    wanted: Wanted,
    rotated: Rotated,
    *,
    secret: str | None,
    file: Path | None,
    older_claims: int | None,
    canary: str | None,
) -> str:
    """Return a rotation as a person reads it; `secret` is what may be shown, `file` is where the receiver's part is."""
    status = f"hookseal endpoint rotation-status --tenant {wanted.tenant_id} --endpoint {wanted.endpoint_id}"
    lines = [*signing_lines(rotated, older_claims), f"rotation   {rotated.rotation_id}"]
    lines += _public_lines(rotated.public_key, file) if rotated.public_key else _secret_lines(rotated, secret, file)
    if rotated.before is None:
        lines.append(f"This rotation was made before. What signs now: {status}")
    elif rotated.previous_secret_ref is not None:
        lines.append(f"Once it has switched: {status} --end-when-switched")
    return "\n".join(lines if canary is None else [*lines, f"canary     {canary}"])


def signing_lines(after: Rotated | Pointer, older_claims: int | None) -> list[str]:
    """Return which secrets sign now, and whether a request that is signed otherwise may still be sent."""
    expires_at = after.previous_secret_expires_at
    if after.previous_secret_ref is not None and expires_at is not None:
        previous = f"{after.previous_secret_ref} until {rfc3339(expires_at)}"
    elif older_claims == 0:
        previous = "none: no request signed with an older secret can begin any more"
    else:
        some = "some requests" if older_claims is None else counted(older_claims, "request", "requests")
        previous = f"none, but {some} that began before may still be sent with an older secret"
    return [f"current    {after.secret_ref}", f"previous   {previous}", f"generation {after.generation}"]


def _public_lines(public_key: str, file: Path | None) -> list[str]:
    kept = [] if file is None else [f"           also in {file}"]
    return [f"public key {public_key}", *kept, "Give the public key to the receiver."]


def _secret_lines(rotated: Rotated, secret: str | None, file: Path | None) -> list[str]:
    if secret is not None:
        return [f"secret     {secret}", "Give the secret to the receiver."]
    if rotated.secret is None:
        return ["secret     not shown: this version is not the active one any more"]
    if file is not None:
        return [f"secret     in {file}", "Give the secret to the receiver."]
    return ["secret     not shown: run it again with this --rotation-id and --secret-out FILE to get it"]
