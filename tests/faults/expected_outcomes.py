"""How a delivery ends whose worker is killed, or paused for longer than its lease, at each point."""

from typing import Final

from tests.faults.fault import POINTS

# Before the claim commits nothing has started; afterwards the attempt is recorded as unknown. The request is sent in
# step 6 and recorded in step 9: only if the worker dies between the two, it is sent again.
NOTHING_STARTED: Final = (1, ["delivered"])
NOT_SENT: Final = (1, ["unknown", "delivered"])
SENT_AND_NOT_RECORDED: Final = (2, ["unknown", "delivered"])
RECORDED: Final = (1, ["delivered"])

# The end of a step is also the beginning of the next: the first beginning and all ends are all the distinct points.
DISTINCT_POINTS: Final = tuple(point for point in POINTS if point == POINTS[0] or point.endswith(".after"))
_SENT, _RECORDED = POINTS.index("send.after"), POINTS.index("record.after")


def expected_outcomes(point: str) -> tuple[int, list[str]]:
    """Return how often the receiver gets the delivery, and the recorded outcomes in order."""
    index = POINTS.index(point)
    if index == 0:
        return NOTHING_STARTED
    if index < _SENT:
        return NOT_SENT
    return SENT_AND_NOT_RECORDED if index < _RECORDED else RECORDED
