"""Verifies one request. A signature must match, and its time must be close to now: by the clock, or as is passed in.

The holder of a secret can sign with it, in the scheme that the secret is for; `Verified.scheme` says which scheme
matched. A public key (`whpk_...`) only verifies. Compare `Verified.delivery_id` with those already handled: retries
and replays have the same id.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.errors import (
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    OutsideTolerance,
    UntrimmedSecret,
    UnusableSecret,
    VerificationError,
)
from hookseal.ground.wire import Scheme
from hookseal.receiver import ed25519
from hookseal.receiver.schemes import SCHEMES, SignatureMatch

TOLERANCE_SECONDS: Final = 300
_HEADERS: Final = frozenset[str]().union(*(names.all for _, names, _ in SCHEMES))
_PREFIX: Final = "whsec_"
# Of a request that is signed in two schemes, the scheme whose checks went further gives the reason.
_SPECIFIC_FIRST: Final = (OutsideTolerance, NoMatchingSignature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was proven. `secret_number` is the position among the given secrets, from 1; `timestamp` is unix seconds.

    The scheme `x-webhook` signs time and body only: there the `delivery_id` is not proven.
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
    now: datetime | float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> Verified:
    """Return what was proven of the request; any of the secrets may have signed it, in any scheme.

    `secrets` are written as hookseal shows them: `whsec_...`; for ed25519 `whpk_...`, which needs the package
    `cryptography`; for `x-webhook`, any text. `now` is an aware datetime or unix seconds, by default the time of this
    machine. Raises `VerificationError`: `MissingHeader`, `MalformedHeader`, `NoMatchingSignature`, `OutsideTolerance`,
    `UnusableSecret` (`UntrimmedSecret` if none matches and one has white space around it); and `TypeError` for a body
    that is text or was parsed: what was signed is the bytes.
    """
    _require_bytes(body)
    _require_usable(secrets)
    at = time.time() if now is None else now  # noqa: TID251 -- the Clock would load asyncio into each receiver
    received = _relevant(headers)
    refusals: list[VerificationError] = []
    for scheme, names, match_signature in SCHEMES:
        if names.signatures.isdisjoint(received):
            continue
        try:
            match = match_signature(body, received, secrets)
            _require_fresh(match, at, tolerance_seconds)
        except VerificationError as refusal:
            refusals.append(refusal)
        else:
            return Verified(
                delivery_id=match.delivery_id,
                timestamp=match.timestamp,
                scheme=scheme,
                secret_number=match.secret_number,
            )
    specific = _most_specific(refusals)
    if isinstance(specific, NoMatchingSignature | UnusableSecret):
        _require_trimmed(
            secrets
        )  # the most likely reason, checked last since such a text may be a valid secret of `x-webhook`
    raise specific


def _require_trimmed(secrets: Sequence[str]) -> None:
    for number, secret in enumerate(secrets, 1):
        if secret != secret.strip():
            raise UntrimmedSecret(
                f"no signature matches, and secret {number} begins or ends with white space, as a line of a file does: "
                "strip it"
            )


def _require_bytes(body: object) -> None:
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"body must be the raw bytes of the request, not {type(body).__name__}")


def _require_usable(secrets: Sequence[str]) -> None:
    if isinstance(secrets, str):
        # Each character would count as a secret, and anybody can guess a secret of one character.
        raise TypeError("secrets must be a list of secrets, not one secret")
    if not secrets:
        raise UnusableSecret("there is no secret")
    for number, secret in enumerate(secrets, 1):
        if not secret.removeprefix(_PREFIX).strip():
            raise UnusableSecret(f"secret {number} is empty")
        wrong = ed25519.key_problem(secret)
        if wrong is not None and ed25519.key_problem(secret.strip()) is None:
            raise UntrimmedSecret(f"secret {number} is a public key with white space around it: strip it")
        if wrong is not None:
            raise UnusableSecret(f"secret {number} {wrong}")


def _relevant(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the schemes, with their names in lower case."""
    received: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower not in _HEADERS:
            continue
        if lower in received:
            raise MalformedHeader(f"{lower} occurs more than once")
        received[lower] = value
    return received


def _require_fresh(match: SignatureMatch, now: datetime | float, tolerance_seconds: float) -> None:
    if isinstance(now, datetime):
        if now.tzinfo is None:
            raise ValueError("now must have a time zone, or be unix seconds")
        now = now.timestamp()
    age = now - match.timestamp
    # Written so that NaN is refused.
    if not abs(age) <= tolerance_seconds:
        where = f"{format_seconds(age)} s old" if age > 0 else f"{format_seconds(-age)} s ahead of this clock"
        allowed = format_seconds(tolerance_seconds)
        raise OutsideTolerance(f"the signature matches, but the request is {where}: {allowed} s are allowed")


def format_seconds(seconds: float) -> str:
    """Return the seconds to a tenth, without an exponent, and whole seconds without a decimal point."""
    return f"{seconds:.1f}".removesuffix(".0")


def _most_specific(refusals: Sequence[VerificationError]) -> VerificationError:
    if not refusals:
        return MissingHeader("neither webhook-signature, svix-signature nor x-webhook-signature is present")
    later = (refusal for kind in _SPECIFIC_FIRST for refusal in refusals if isinstance(refusal, kind))
    return next(later, refusals[0])
