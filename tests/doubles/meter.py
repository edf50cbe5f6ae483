"""A meter that keeps all that is reported to it."""

from hookseal.dispatcher.core.model import Outcome, Verdict, WaitingFor


class ListMeter:
    """Keeps every report in the order of its arrival."""

    def __init__(self) -> None:
        self.attempts: list[tuple[Outcome, float, float | None]] = []
        self.were_held: list[bool] = []  # by attempt
        self.verdicts: list[Verdict] = []
        self.holds: list[WaitingFor] = []
        self.leases_lost = 0
        self.returns = 0
        self.lacks = 0

    def attempted(self, outcome: Outcome, seconds: float, *, first_after: float | None, was_held: bool = False) -> None:
        self.attempts.append((outcome, seconds, first_after))
        self.were_held.append(was_held)

    def decided(self, verdict: Verdict) -> None:
        """Keep the verdict of a recorded attempt."""
        self.verdicts.append(verdict)

    def held(self, waiting_for: WaitingFor) -> None:
        """Keep the reason for which the delivery is held."""
        self.holds.append(waiting_for)

    def given_back(self) -> None:
        self.returns += 1

    def exhausted(self) -> None:
        self.lacks += 1

    def lease_lost(self) -> None:
        self.leases_lost += 1
