"""Which way a pointer may move: rotation, rollback and the end of an overlap as decisions over the row that was read.

Each returns the fields that change, for `pointer.moved`. Overlaps run by the database's clock: `previous_due`
and `expires_at` come from it.
"""

from datetime import datetime
from typing import Any, Final

from hookseal.ground.errors import Conflict, Malformed
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.ref import SecretRef

MAX_OVERLAP_SECONDS: Final = 604_800
_NOBODY: Final[dict[str, Any]] = {
    "previous_secret_ref": None,
    "previous_secret_expires_at": None,
    "previous_scheme": None,
    "previous_algorithm": None,
}


def require_overlap(seconds: int) -> int:
    """Return the length of an overlap if it is 0 to 604,800 seconds. Raises `Malformed`."""
    if not 0 <= seconds <= MAX_OVERLAP_SECONDS:
        raise Malformed(f"overlap must be 0 to {MAX_OVERLAP_SECONDS} seconds", field="overlap")
    return seconds


def require_generation(found: Pointer, expected: int | None) -> None:
    """Return only if the row is of the generation that was expected, or none was. Raises `Conflict`."""
    if expected is not None and found.generation != expected:
        raise Conflict(
            f"the endpoint is at generation {found.generation}, not {expected}: somebody changed it meanwhile",
            field="expect_generation",
        )


def require_signable(scheme: Scheme, algorithm: Algorithm) -> None:
    """Return only if the scheme has signatures of that algorithm. Raises `Malformed`, which says what has."""
    if scheme is Scheme.X_WEBHOOK and algorithm is not Algorithm.HMAC:
        raise Malformed(
            f"{Scheme.X_WEBHOOK} signs with {Algorithm.HMAC} only: give --algorithm {Algorithm.HMAC}, "
            f"or --scheme {Scheme.STANDARD}",
            field="algorithm",
        )


def rotated(
    found: Pointer, ref: SecretRef, *, how: tuple[Scheme, Algorithm], lead: str | None, expires_at: datetime | None
) -> dict[str, Any]:
    """Return the changes that make `ref` current, which signs so; without `expires_at` nothing older does any more."""
    scheme, algorithm = how
    changes = {
        "secret_ref": str(ref),
        "scheme": scheme.value,
        "algorithm": algorithm.value,
        "lead": lead or found.lead,
    }
    if expires_at is None:
        return changes | _NOBODY
    return changes | {
        "previous_secret_ref": found.secret_ref,
        "previous_secret_expires_at": expires_at,
        "previous_scheme": found.scheme,
        "previous_algorithm": found.algorithm,
    }


def require_rotatable(found: Pointer, *, overlap_seconds: int, force: bool) -> None:
    """Return only if a rotation with this overlap may begin now.

    A revocation (0) always may. Raises `Conflict` if the endpoint has no secret, or if an overlap still runs
    and is not to be cut short by `force`: a receiver may know only its previous secret.
    """
    if found.secret_ref is None:
        raise Conflict("the endpoint has no secret to rotate", field="endpoint")
    if found.previous_due and overlap_seconds > 0 and not force:
        raise Conflict(
            "an overlap is running, and its previous secret would retire at once: wait for its end, end it with "
            "`hookseal endpoint rotation-status --end-when-switched`, or use --force; if the secret leaked, "
            "use --overlap 0",
            field="endpoint",
        )


def rolled_back(found: Pointer, *, expires_at: datetime | None) -> dict[str, Any]:
    """Return the changes that make the previous secret current again, and the current one previous.

    Without `expires_at` what was current signs nothing any more. Raises `Conflict` unless an overlap runs.
    """
    if not found.previous_due:
        raise Conflict("no overlap is running: there is nothing to roll back to", field="endpoint")
    changes = {
        "secret_ref": found.previous_secret_ref,
        "scheme": found.previous_scheme,
        "algorithm": found.previous_algorithm,
    }
    if expires_at is None:
        return changes | _NOBODY
    return changes | {
        "previous_secret_ref": found.secret_ref,
        "previous_secret_expires_at": expires_at,
        "previous_scheme": found.scheme,
        "previous_algorithm": found.algorithm,
    }


def ended(found: Pointer) -> dict[str, Any]:
    """Return the changes that drop the previous secret. Raises `Conflict` if there is none."""
    if found.previous_secret_ref is None:
        raise Conflict("the endpoint has no previous secret", field="endpoint")
    return dict(_NOBODY)
