"""Decides which pointer columns a rotation, a rollback or the end of an overlap changes. Pure.

The result is for `pointer.move`. The database's clock measures overlaps: `previous_due` and `expires_at` come from it.
"""

from datetime import datetime
from typing import Any, Final

from hookseal.errors import Conflict, Malformed
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.ref import SecretRef

MAX_OVERLAP_SECONDS: Final = 604_800
_NO_PREVIOUS: Final[dict[str, Any]] = {
    "previous_secret_ref": None,
    "previous_secret_expires_at": None,
    "previous_scheme": None,
    "previous_algorithm": None,
}


def require_overlap(seconds: int) -> int:
    """Return `seconds` if it is 0 to 604,800. Raises `Malformed` otherwise."""
    if not 0 <= seconds <= MAX_OVERLAP_SECONDS:
        raise Malformed(f"overlap must be 0 to {MAX_OVERLAP_SECONDS} seconds", field="overlap_seconds")
    return seconds


def require_generation(pointer: Pointer, expected: int | None) -> None:
    """Raise `Conflict` if the pointer has another generation than `expected`. None allows every generation."""
    if expected is not None and pointer.generation != expected:
        raise Conflict(
            f"the endpoint is at generation {pointer.generation}, not {expected}: somebody changed it meanwhile",
            field="expect_generation",
        )


def require_reached(generation: int, revoked: int) -> None:
    """Raise `Conflict` if the endpoint, at this generation, has not reached that of a revocation."""
    if generation < revoked:
        raise Conflict(
            f"the endpoint is at generation {generation}, not yet at {revoked}: first commit the transaction of the "
            "revocation; if it was rolled back, nothing was revoked, and you must revoke again",
            field="generation",
        )


def require_signable(scheme: Scheme, algorithm: Algorithm) -> None:
    """Raise `Malformed`, naming the alternatives, if the scheme has no signatures with that algorithm."""
    if scheme is Scheme.X_WEBHOOK and algorithm is not Algorithm.HMAC:
        raise Malformed(
            f"{Scheme.X_WEBHOOK} signs with {Algorithm.HMAC} only",
            advice=f"give --algorithm {Algorithm.HMAC}, or --scheme {Scheme.STANDARD}",
            field="algorithm",
        )


def changes_of_rotation(
    pointer: Pointer, ref: SecretRef, *, how: tuple[Scheme, Algorithm], lead: str | None, expires_at: datetime | None
) -> dict[str, Any]:
    """Return the changes that make `ref` the current secret; without `expires_at` no previous secret signs."""
    scheme, algorithm = how
    changes = {
        "secret_ref": str(ref),
        "scheme": scheme.value,
        "algorithm": algorithm.value,
        "lead": lead or pointer.lead,
    }
    if expires_at is None:
        return changes | _NO_PREVIOUS
    return changes | {
        "previous_secret_ref": pointer.secret_ref,
        "previous_secret_expires_at": expires_at,
        "previous_scheme": pointer.scheme,
        "previous_algorithm": pointer.algorithm,
    }


def require_rotatable(pointer: Pointer, *, overlap_seconds: int, force: bool) -> None:
    """Raise `Conflict` if a rotation with this overlap must not begin now.

    That is the case if the endpoint has no secret, or if an overlap is running: a receiver may know only its previous
    secret. A revocation (0 seconds) and `force` cut a running overlap short.
    """
    if pointer.secret_ref is None:
        raise Conflict("the endpoint has no secret to rotate", field="endpoint_id")
    if pointer.previous_due and overlap_seconds > 0 and not force:
        raise Conflict(
            "an overlap is running, and its previous secret would retire at once",
            advice="wait for its end, end it with `hookseal endpoint end-overlap "
            f"--tenant {pointer.tenant_id} --endpoint {pointer.endpoint_id} --when-switched`, or use --force; "
            "if the secret leaked, use --overlap 0",
            field="endpoint_id",
        )


def changes_of_rollback(pointer: Pointer, *, expires_at: datetime | None) -> dict[str, Any]:
    """Return the changes that make the previous secret current again, and the current one previous.

    Without `expires_at` the secret that was current no longer signs. Raises `Conflict` unless an overlap is running.
    """
    if not pointer.previous_due:
        raise Conflict("no overlap is running: there is nothing to roll back to", field="endpoint_id")
    changes = {
        "secret_ref": pointer.previous_secret_ref,
        "scheme": pointer.previous_scheme,
        "algorithm": pointer.previous_algorithm,
    }
    if expires_at is None:
        return changes | _NO_PREVIOUS
    return changes | {
        "previous_secret_ref": pointer.secret_ref,
        "previous_secret_expires_at": expires_at,
        "previous_scheme": pointer.scheme,
        "previous_algorithm": pointer.algorithm,
    }


def changes_of_end(pointer: Pointer) -> dict[str, Any]:
    """Return the changes that remove the previous secret. Raises `Conflict` if there is none."""
    if pointer.previous_secret_ref is None:
        raise Conflict("the endpoint has no previous secret", field="endpoint_id")
    return dict(_NO_PREVIOUS)
