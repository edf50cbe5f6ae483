"""Whether a receiver would accept a request, and why, for commands that explain it."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from hookseal.receiver import UnverifiedHeaders, VerificationError, unverified_headers, verify


class Answer(TypedDict):
    """The verdict of a receiver. The fields of a refused request are what it claims, and not verified."""

    verified: bool
    reason: str | None
    scheme: str | None
    delivery_id: str | None
    timestamp: int | None
    age_seconds: float | None
    secret_number: int | None


def verdict(
    body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, now: float, tolerance: float
) -> tuple[Answer, str]:
    """Return the verdict, and a text that says which secret verifies the request, or why it is refused."""
    try:
        proven = verify(body, headers, secrets, now=now, tolerance_seconds=tolerance)
    except VerificationError as refusal:
        return _refused(refusal, unverified_headers(headers), now), str(refusal)
    answer = Answer(
        verified=True,
        reason=None,
        scheme=proven.scheme,
        delivery_id=proven.delivery_id,
        timestamp=proven.timestamp,
        age_seconds=_age(proven.timestamp, now),
        secret_number=proven.secret_number,
    )
    return answer, f"with secret {proven.secret_number} of {len(secrets)}"


def _refused(refusal: VerificationError, request: UnverifiedHeaders, now: float) -> Answer:
    return Answer(
        verified=False,
        reason=refusal.reason,
        scheme=request.scheme,
        delivery_id=request.delivery_id,
        timestamp=request.timestamp,
        age_seconds=None if request.timestamp is None else _age(request.timestamp, now),
        secret_number=None,
    )


def _age(timestamp: int, now: float) -> float:
    return round(now - timestamp, 3)
