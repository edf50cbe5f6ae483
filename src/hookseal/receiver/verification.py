"""Verifies one request: pure, with the time passed in. A signature must fit, and its time must be near now.

Whoever holds a secret may sign with it, in the scheme that the secret is for; `Verified.scheme` says which
one it was. A public key (`whpk_...`) only verifies. Compare `Verified.delivery_id` with those that were handled
already: retries and replays keep it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.wire import Scheme
from hookseal.receiver import ed25519
from hookseal.receiver.errors import (
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    OutsideTolerance,
    UntrimmedSecret,
    UnusableSecret,
    VerificationError,
)
from hookseal.receiver.schemes import SCHEMES
from hookseal.receiver.signature import Signed

TOLERANCE_SECONDS: Final = 300
_HEADERS: Final = frozenset[str]().union(*(names.all for _, names, _ in SCHEMES))
_PREFIX: Final = "whsec_"
# Of a request that is signed in both schemes, the refusal by the one that came further is told.
_MOST_TELLING: Final = (OutsideTolerance, NoMatchingSignature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was proven. `secret_number` counts the secrets that were given from 1; `timestamp` is unix seconds.

    The scheme `x-webhook` signs time and body only: there, nothing proves the `delivery_id`.
    """

    delivery_id: str
    timestamp: int
    scheme: Scheme
    secret_number: int


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: Sequence[str],
    *,
    now: datetime | float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> Verified:
    """Return what was proven of the request; any one of the secrets may have signed it, in either scheme.

    `secrets` are spelled as hookseal shows them: `whsec_...`; for ed25519 `whpk_...`, which needs the package
    `cryptography`; for `x-webhook`, any text. `now` is an aware datetime or unix seconds. Raises
    `VerificationError`: `MissingHeader`, `MalformedHeader`, `NoMatchingSignature`, `OutsideTolerance`,
    `UnusableSecret` (`UntrimmedSecret` if none fits and one has white space around it).
    """
    _require_usable(secrets)
    received = _relevant(headers)
    refusals: list[VerificationError] = []
    for scheme, names, signed_by in SCHEMES:
        if names.signatures.isdisjoint(received):
            continue
        try:
            signed = signed_by(body, received, secrets)
            _require_fresh(signed, now, tolerance_seconds)
        except VerificationError as refusal:
            refusals.append(refusal)
        else:
            return Verified(
                delivery_id=signed.delivery_id,
                timestamp=signed.timestamp,
                scheme=scheme,
                secret_number=signed.secret_number,
            )
    telling = _most_telling(refusals)
    if isinstance(telling, NoMatchingSignature | UnusableSecret):
        _require_trimmed(secrets)  # the likeliest reason; but such a text may itself be a secret of `x-webhook`
    raise telling


def _require_trimmed(secrets: Sequence[str]) -> None:
    for number, secret in enumerate(secrets, 1):
        if secret != secret.strip():
            raise UntrimmedSecret(
                f"no signature fits, and secret {number} begins or ends with white space, as the line of a file does: "
                "strip it"
            )


def _require_usable(secrets: Sequence[str]) -> None:
    if isinstance(secrets, str):
        # Its characters would be taken for secrets, and anybody can sign with one character.
        raise TypeError("secrets must be a list of secrets, not one secret")
    if not secrets:
        raise UnusableSecret("no secret was given")
    for number, secret in enumerate(secrets, 1):
        if not secret.removeprefix(_PREFIX).strip():
            raise UnusableSecret(f"secret {number} is empty")
        wrong = ed25519.why_unusable(secret)
        if wrong is not None and ed25519.why_unusable(secret.strip()) is None:
            raise UntrimmedSecret(f"secret {number} is a public key with white space around it: strip it")
        if wrong is not None:
            raise UnusableSecret(f"secret {number} {wrong}")


def _relevant(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that count, under their names in lower case."""
    received: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower not in _HEADERS:
            continue
        if lower in received:
            raise MalformedHeader(f"{lower} is there more than once")
        received[lower] = value
    return received


def _require_fresh(signed: Signed, now: datetime | float, tolerance_seconds: float) -> None:
    if isinstance(now, datetime):
        if now.tzinfo is None:
            raise ValueError("now must have a time zone, or be unix seconds")
        now = now.timestamp()
    age = now - signed.timestamp
    # Written so that what is no number (nan) is refused.
    if not abs(age) <= tolerance_seconds:
        where = f"{spelled(age)} s old" if age > 0 else f"{spelled(-age)} s ahead of this clock"
        allowed = spelled(tolerance_seconds)
        raise OutsideTolerance(f"the signature fits, but the request is {where}: {allowed} s are allowed")


def spelled(seconds: float) -> str:
    """Return the seconds to a tenth, as people write them: without an exponent, and whole ones without a point."""
    return f"{seconds:.1f}".removesuffix(".0")


def _most_telling(refusals: Sequence[VerificationError]) -> VerificationError:
    if not refusals:
        return MissingHeader("neither webhook-signature nor x-webhook-signature is there")
    further = (refusal for kind in _MOST_TELLING for refusal in refusals if isinstance(refusal, kind))
    return next(further, refusals[0])
