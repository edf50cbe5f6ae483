"""What a receiver would answer to a request, and why: for those who look into it."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from hookseal.receiver import Stated, VerificationError, stated, verify


class Answer(TypedDict):
    """What a receiver would answer. What a refused request says of itself is not proven."""

    verified: bool
    reason: str | None
    scheme: str | None
    delivery_id: str | None
    timestamp: int | None
    age_seconds: float | None
    secret_number: int | None


def answered(
    body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, now: float, tolerance: float
) -> tuple[Answer, str]:
    """Return the answer, and for people what proved it or why it is refused."""
    try:
        proven = verify(body, headers, secrets, now=now, tolerance_seconds=tolerance)
    except VerificationError as refusal:
        return _refused(refusal, stated(headers), now), str(refusal)
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


def _refused(refusal: VerificationError, request: Stated, now: float) -> Answer:
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
