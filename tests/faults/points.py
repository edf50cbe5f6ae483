"""What becomes of a delivery whose worker dies, or stands still for longer than its lease, at each of the points."""

from typing import Final

from tests.faults.fault import POINTS

# Before the claim commits nothing was begun; afterwards the attempt is on record as unknown. The request is sent in
# step 6 and recorded in step 9: who dies between the two, and only there, has it sent again.
NOTHING_BEGUN: Final = (1, ["delivered"])
NOT_SENT: Final = (1, ["unknown", "delivered"])
SENT_AND_NOT_RECORDED: Final = (2, ["unknown", "delivered"])
RECORDED: Final = (1, ["delivered"])

# Where a step ends the next begins: with the first beginning, these are all of them.
FIRST_AND_LATER: Final = tuple(point for point in POINTS if point == POINTS[0] or point.endswith(".after"))
_SENT, _RECORDED = POINTS.index("send.after"), POINTS.index("record.after")


def expected(point: str) -> tuple[int, list[str]]:
    """Return how often the delivery is seen, and the outcomes on record, first to last."""
    place = POINTS.index(point)
    if place == 0:
        return NOTHING_BEGUN
    if place < _SENT:
        return NOT_SENT
    return SENT_AND_NOT_RECORDED if place < _RECORDED else RECORDED
