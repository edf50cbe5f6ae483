"""Compares, after a fault, what was published, what the receiver got, and what is on record.

One pure function, `compare`. Its laws:
- what was published was received, and ended in the right state; what was received was published, is signed, and has
  the body of its event;
- no attempt was sent twice, and each that was sent is on record;
- an attempt on record as `delivered` was answered with the recorded status, and no delivery has two of them; one of
  outcome `unknown` belongs to a worker that died, or lost its lease;
- so a receiver gets a delivery again only after an attempt that failed, or one that had been sent and not recorded;
- no lease is left, no number of an attempt is missing, and Redis is empty.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from hookseal.dispatcher.core.model import Outcome, State

SHOWN = 5


@dataclass(slots=True, kw_only=True)
class ReceivedRequest:
    """One request: its delivery, attempt, contents and time. `answered` is the status, None until it is answered."""

    delivery_id: str
    attempt: int
    path: str
    digest: bytes
    is_verified: bool
    at: float
    answered: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery in its last state, with the digest of the body of its event."""

    id: str
    state: str
    attempts: int
    digest: bytes
    is_leased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAttempt:
    delivery_id: str
    number: int
    outcome: str
    status: int | None
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that is compared.

    `dead` names the workers that were killed, or stood still for longer than their lease. `ends` names the
    deliveries that must end in another state than `delivered`.
    """

    published: Collection[str]
    requests: Sequence[ReceivedRequest]
    deliveries: Sequence[Delivery]
    attempts: Sequence[RecordedAttempt]
    redis_keys: Collection[str]
    dead: Collection[str]
    ends: Mapping[str, State] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of the comparison. `counts` are kept as evidence; `violations` has a line for every broken law."""

    counts: dict[str, int]
    violations: tuple[str, ...]

    def require(self, **counts: int) -> None:
        """Fail with the whole report unless every law holds and these counts are equal."""
        differ = {name: (wanted, self.counts[name]) for name, wanted in counts.items() if wanted != self.counts[name]}
        assert ((), {}) == (self.violations, differ), f"{self}\nexpected and found: {differ}"

    def __str__(self) -> str:
        lines = [f"{name:>12} {number}" for name, number in self.counts.items()]
        return "\n".join(["counts:", *lines, *(self.violations or ("every law holds",))])


def compare(evidence: Evidence) -> Report:
    """Check the evidence against the laws.

    `lost`: published and never received, or not ended. `duplicates`: requests that had been sent and not recorded, so
    that the delivery was sent again. `unexplained`: requests for which the record has no such reason.
    `unknown`: attempts of dead workers on record.
    """
    findings = _Findings(evidence)
    laws = {
        "published and never received, or not ended": findings.lost(),
        "ended in the wrong state": findings.in_the_wrong_state(),
        "sent without a reason on record": findings.unexplained(),
        "sent with another body, unsigned, or never published": findings.altered(),
        "recorded with an impossible outcome": findings.misrecorded(),
        "with missing or repeated attempt numbers": findings.with_gaps(),
        "still leased": [delivery.id for delivery in evidence.deliveries if delivery.is_leased],
        "left in Redis": list(evidence.redis_keys),
    }
    broken = {law: list(cases) for law, cases in laws.items()}
    counts = {
        "deliveries": len(evidence.published),
        "requests": len(evidence.requests),
        "lost": len(broken["published and never received, or not ended"]),
        "duplicates": len(findings.sent_and_not_recorded()),
        "unexplained": len(broken["sent without a reason on record"]),
        "unknown": sum(attempt.outcome == Outcome.UNKNOWN for attempt in evidence.attempts),
        "wrong": sum(len(cases) for cases in broken.values()),
    }
    violations = (f"{len(cases)} {law}: {', '.join(islice(cases, SHOWN))}" for law, cases in broken.items() if cases)
    return Report(counts=counts, violations=tuple(violations))


class _Findings:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._deliveries = {delivery.id: delivery for delivery in evidence.deliveries}
        self._attempts = {(attempt.delivery_id, attempt.number): attempt for attempt in evidence.attempts}
        self._sent = {(request.delivery_id, request.attempt): request for request in evidence.requests}

    def lost(self) -> Iterator[str]:
        received = {request.delivery_id for request in self._evidence.requests}
        for each in self._evidence.published:
            delivery = self._deliveries.get(each)
            is_over = delivery is not None and delivery.state not in {State.PENDING, State.SENDING}
            if not is_over or (self._expected_state(each) is State.DELIVERED and each not in received):
                yield each

    def in_the_wrong_state(self) -> Iterator[str]:
        for delivery in self._evidence.deliveries:
            if delivery.state != self._expected_state(delivery.id):
                yield f"{delivery.id} is {delivery.state}"

    def unexplained(self) -> Iterator[str]:
        """Yield requests without an attempt on record, and attempts that were sent more than once."""
        times = Counter((request.delivery_id, request.attempt) for request in self._evidence.requests)
        for (delivery, number), count in times.items():
            if count > 1 or (delivery, number) not in self._attempts:
                yield f"{delivery} attempt {number} ({count} times)"

    def altered(self) -> Iterator[str]:
        published = set(self._evidence.published)
        for request in self._evidence.requests:
            delivery = self._deliveries.get(request.delivery_id)
            is_unaltered = delivery is not None and delivery.digest == request.digest and request.is_verified
            if not is_unaltered or request.delivery_id not in published:
                yield f"{request.delivery_id} attempt {request.attempt}"

    def misrecorded(self) -> Iterator[str]:
        """Yield attempts whose outcome contradicts the receiver's answer or the end of the worker."""
        times = Counter(a.delivery_id for a in self._evidence.attempts if a.outcome == Outcome.DELIVERED)
        for (delivery, number), attempt in self._attempts.items():
            reason = _why_impossible(attempt, self._sent.get((delivery, number)), self._evidence.dead)
            if reason is not None or times[delivery] > 1:
                yield f"{delivery} attempt {number} is {attempt.outcome}: {reason or 'delivered more than once'}"

    def with_gaps(self) -> Iterator[str]:
        numbers = Counter(attempt.delivery_id for attempt in self._evidence.attempts)
        for delivery in self._evidence.deliveries:
            wanted = range(1, delivery.attempts + 1)
            if numbers[delivery.id] != delivery.attempts or any((delivery.id, n) not in self._attempts for n in wanted):
                yield f"{delivery.id} has counted {delivery.attempts}"

    def sent_and_not_recorded(self) -> list[str]:
        unknown = {key for key, attempt in self._attempts.items() if attempt.outcome == Outcome.UNKNOWN}
        return [delivery for delivery, number in self._sent if (delivery, number) in unknown]

    def _expected_state(self, delivery: str) -> State:
        return self._evidence.ends.get(delivery, State.DELIVERED)


def _why_impossible(attempt: RecordedAttempt, request: ReceivedRequest | None, dead: Collection[str]) -> str | None:
    answered = None if request is None else request.answered
    match attempt.outcome:
        case Outcome.DELIVERED if answered != attempt.status:
            return f"status {attempt.status}, answered {answered}"
        case Outcome.UNKNOWN if attempt.worker not in dead:
            return "its worker neither died nor lost its lease"
        case Outcome.DELIVERED | Outcome.UNKNOWN | Outcome.TIMEOUT | Outcome.CONNECTION:
            return None
        case _ if answered != attempt.status:
            return f"status {attempt.status}, answered {answered}"
        case _:
            return None
