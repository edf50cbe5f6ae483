"""What PostgreSQL has about the endpoints of a simulation, their deliveries, and the lines of ordered endpoints."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hookseal.dispatcher.core.model import NO_PACE, OnDeadLetter, Outcome, Pace, WaitingFor
from hookseal.dispatcher.lanes.rotation import Key
from hookseal.dispatcher.store.lanes import FIRST_PROBE_SECONDS

# Returns for a time how long the endpoint takes to answer, and its outcome.
Receiver = Callable[[float], tuple[float, Outcome]]


@dataclass(slots=True)
class Delivery:
    """A delivery, when it was published, and when its first request began.

    Only for those of ordered endpoints it is noted when they are due, and what they wait for.
    """

    number: int
    key: Key
    published_at: float
    attempts: int = 0
    begun_at: float | None = None
    ended_at: float | None = None
    spent: int = 0  # attempts since it was published or replayed
    due_at: float | None = None  # None: it is being sent, or has ended
    waiting_for: WaitingFor | None = None


@dataclass(slots=True)
class Line:
    """The deliveries of an ordered endpoint that have not left their line, in the order of publishing."""

    attempts_allowed: int
    on_dead_letter: OnDeadLetter
    deliveries: deque[Delivery] = field(default_factory=deque)
    is_watched: bool = False

    @property
    def head(self) -> Delivery | None:
        """The only one that may be claimed."""
        return self.deliveries[0] if self.deliveries else None

    def join(self, delivery: Delivery, now: float) -> bool:
        """Give it the last place; return whether it is due, as no other is in the line."""
        self.deliveries.append(delivery)
        delivery.spent, delivery.due_at = 0, now
        is_first = delivery is self.head
        delivery.waiting_for = None if is_first else WaitingFor.ORDER
        return is_first

    def leave(self, delivery: Delivery) -> None:
        """Take it out of its line."""
        self.deliveries.remove(delivery)  # it is the first, unless the simulation let it overtake


@dataclass(slots=True)
class Endpoint:
    """An endpoint: its receiver and pace, and what PostgreSQL has about it."""

    receiver: Receiver
    pace: Pace = NO_PACE
    line: Line | None = None
    parked: list[int] = field(default_factory=list)  # a heap: the oldest first. What is in a line is not here
    is_crowded: bool = False
    is_held: bool = False
    step: float = FIRST_PROBE_SECONDS
    probe: int | None = None
    reopened_at: float | None = None
    in_flight: int = 0

    def park(self, delivery: Delivery) -> None:
        """Let it wait for its lane."""
        if self.line is None:
            heapq.heappush(self.parked, delivery.number)
        else:
            delivery.waiting_for = WaitingFor.CONCURRENCY

    @property
    def has_parked(self) -> bool:
        """Whether one waits for its lane."""
        head = None if self.line is None else self.line.head
        return bool(self.parked) or (head is not None and head.waiting_for is WaitingFor.CONCURRENCY)

    def oldest(self, number: int) -> list[int]:
        """Return the oldest that wait for their lane, or the head of the line if it waits."""
        if self.line is not None:
            head = self.line.head
            return [head.number] if head is not None and head.waiting_for is not None else []
        return [heapq.heappop(self.parked) for _ in range(min(number, len(self.parked)))]
