"""The bookkeeping after a fault: a comparison of what was published, what was seen and what is on record.

One pure function, `balance`. Its laws:
- what was published was seen, and ended as it should; what was seen was published, is signed, and has the body of
  its event;
- no attempt was sent twice, and each that was sent is on record;
- an attempt is on record as `delivered` exactly if it was answered so and its worker lived to write it; one of outcome
  `unknown` belongs to a worker that died, or lost its lease;
- so a receiver gets a delivery again only after an attempt that failed, or one that had been sent and not recorded;
- no lease is left, no number of an attempt is missing, and Redis is empty.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from hookseal.dispatcher.model import Outcome, State
from tests.faults.recording_receiver import Seen

SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery in its last state, with the digest of the body of its event."""

    id: str
    state: str
    attempts: int
    digest: bytes
    is_leased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One attempt on record."""

    delivery_id: str
    number: int
    outcome: str
    status: int | None
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Everything that is compared.

    `dead` names the workers that were killed, or stood still for longer than their lease. `ends` names the
    deliveries that must end in another state than `delivered`.
    """

    published: Collection[str]
    seen: Sequence[Seen]
    deliveries: Sequence[Delivery]
    attempts: Sequence[Recorded]
    redis_keys: Collection[str]
    dead: Collection[str]
    ends: Mapping[str, State] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The result of the comparison. `counts` are kept as evidence; `wrong` has a line for every broken law."""

    counts: dict[str, int]
    wrong: tuple[str, ...]

    def require(self, **counts: int) -> None:
        """Fail with the whole report unless every law holds and these counts are equal."""
        differ = {name: (wanted, self.counts[name]) for name, wanted in counts.items() if wanted != self.counts[name]}
        assert ((), {}) == (self.wrong, differ), f"{self}\nexpected and found: {differ}"

    def __str__(self) -> str:
        lines = [f"{name:>12} {number}" for name, number in self.counts.items()]
        return "\n".join(["the books:", *lines, *(self.wrong or ("every law holds",))])


def balance(books: Books) -> Balance:
    """Check the books against the laws.

    `lost`: published and never seen, or not ended. `duplicates`: requests that had been sent and not recorded, so that
    the delivery was sent again. `unexplained`: requests for which the record has no such reason. `unknown`: attempts
    of dead workers on record.
    """
    found = _Found(books)
    laws = {
        "published and never seen, or not ended": found.lost(),
        "ended in the wrong state": found.in_the_wrong_state(),
        "sent without a reason on record": found.unexplained(),
        "sent with another body, unsigned, or never published": found.altered(),
        "on record as it cannot have been": found.misrecorded(),
        "numbered with gaps": found.with_gaps(),
        "under a lease still": [delivery.id for delivery in books.deliveries if delivery.is_leased],
        "left in Redis": list(books.redis_keys),
    }
    broken = {law: list(cases) for law, cases in laws.items()}
    counts = {
        "deliveries": len(books.published),
        "requests": len(books.seen),
        "lost": len(broken["published and never seen, or not ended"]),
        "duplicates": len(found.sent_and_not_recorded()),
        "unexplained": len(broken["sent without a reason on record"]),
        "unknown": sum(attempt.outcome == Outcome.UNKNOWN for attempt in books.attempts),
        "wrong": sum(len(cases) for cases in broken.values()),
    }
    wrong = (f"{len(cases)} {law}: {', '.join(islice(cases, SHOWN))}" for law, cases in broken.items() if cases)
    return Balance(counts=counts, wrong=tuple(wrong))


class _Found:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._deliveries = {delivery.id: delivery for delivery in books.deliveries}
        self._attempts = {(attempt.delivery_id, attempt.number): attempt for attempt in books.attempts}
        self._sent = {(seen.delivery_id, seen.attempt): seen for seen in books.seen}

    def lost(self) -> Iterator[str]:
        seen = {request.delivery_id for request in self._books.seen}
        for each in self._books.published:
            delivery = self._deliveries.get(each)
            is_over = delivery is not None and delivery.state not in {State.PENDING, State.SENDING}
            if not is_over or (self._wanted(each) is State.DELIVERED and each not in seen):
                yield each

    def in_the_wrong_state(self) -> Iterator[str]:
        for delivery in self._books.deliveries:
            if delivery.state != self._wanted(delivery.id):
                yield f"{delivery.id} is {delivery.state}"

    def unexplained(self) -> Iterator[str]:
        """Yield requests without an attempt on record, and attempts that were sent more than once."""
        times = Counter((seen.delivery_id, seen.attempt) for seen in self._books.seen)
        for (delivery, number), count in times.items():
            if count > 1 or (delivery, number) not in self._attempts:
                yield f"{delivery} attempt {number} ({count} times)"

    def altered(self) -> Iterator[str]:
        published = set(self._books.published)
        for seen in self._books.seen:
            delivery = self._deliveries.get(seen.delivery_id)
            is_whole = delivery is not None and delivery.digest == seen.digest and seen.is_verified
            if not is_whole or seen.delivery_id not in published:
                yield f"{seen.delivery_id} attempt {seen.attempt}"

    def misrecorded(self) -> Iterator[str]:
        """Yield attempts whose outcome contradicts what the receiver saw, or the worker that wrote it."""
        times = Counter(a.delivery_id for a in self._books.attempts if a.outcome == Outcome.DELIVERED)
        for (delivery, number), attempt in self._attempts.items():
            fault = _fault(attempt, self._sent.get((delivery, number)), self._books.dead)
            if fault is not None or times[delivery] > 1:
                yield f"{delivery} attempt {number} is {attempt.outcome}: {fault or 'delivered more than once'}"

    def with_gaps(self) -> Iterator[str]:
        numbers = Counter(attempt.delivery_id for attempt in self._books.attempts)
        for delivery in self._books.deliveries:
            wanted = range(1, delivery.attempts + 1)
            if numbers[delivery.id] != delivery.attempts or any((delivery.id, n) not in self._attempts for n in wanted):
                yield f"{delivery.id} says {delivery.attempts}"

    def sent_and_not_recorded(self) -> list[str]:
        unknown = {key for key, attempt in self._attempts.items() if attempt.outcome == Outcome.UNKNOWN}
        return [delivery for delivery, number in self._sent if (delivery, number) in unknown]

    def _wanted(self, delivery: str) -> State:
        return self._books.ends.get(delivery, State.DELIVERED)


def _fault(attempt: Recorded, seen: Seen | None, dead: Collection[str]) -> str | None:
    """Return why an attempt on record is impossible, None if it is possible."""
    answered = None if seen is None else seen.answered
    match attempt.outcome:
        case Outcome.DELIVERED if answered != attempt.status:
            return f"status {attempt.status}, answered {answered}"
        case Outcome.UNKNOWN if attempt.worker not in dead:
            return "its worker lived"
        case Outcome.DELIVERED | Outcome.UNKNOWN | Outcome.TIMEOUT | Outcome.CONNECTION:
            return None
        case _ if answered != attempt.status:
            return f"status {attempt.status}, answered {answered}"
        case _:
            return None
