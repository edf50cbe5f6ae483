"""Decides when a connection should discard the plans that PostgreSQL keeps for its statements. Pure.

PostgreSQL keeps the plan of a prepared statement until it analyses the table, a minute or more later. A plan that was
made for a small table may read all of a large one at each use. A new plan fits the size that the table has then.
"""

import math
from typing import Final

# A statement that takes longer may have a plan for smaller tables. On a busy machine all may: plans last for some time.
SLOW_SECONDS: Final = 0.02
PLANS_LAST_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 60.0  # autovacuum checks as often whether to analyse a table


class Plans:
    """The age of the plans of one connection, and how long they last.

    Plans last `PLANS_LAST_SECONDS`. If a statement is slow with new plans as well, the next ones last twice as long, up
    to `LONGEST_SECONDS`: the machine may be slow, or the statement always is, and to plan costs up to 30 ms of CPU.
    """

    __slots__ = ("_is_again", "_last_seconds", "_planned", "_planned_at")

    def __init__(self) -> None:
        self._planned = set[str]()
        self._planned_at = -math.inf
        self._last_seconds = PLANS_LAST_SECONDS
        self._is_again = False  # whether plans were discarded before

    def are_old(self, statement: str, *, took_seconds: float, now: float) -> bool:
        """Return whether to discard the plans after this statement, which has just ended; `now` is in seconds.

        The first use of a statement is never slow, since its time includes the making of its plan. If this returns
        True, the caller discards the plans, and later uses count as first ones.
        """
        if statement not in self._planned:
            self._planned_at = self._planned_at if self._planned else now
            self._planned.add(statement)
            return False
        age = now - self._planned_at
        if took_seconds < SLOW_SECONDS or age < self._last_seconds:
            return False
        are_slow_again = self._is_again and age < 2 * self._last_seconds
        self._last_seconds = min(2 * self._last_seconds, LONGEST_SECONDS) if are_slow_again else PLANS_LAST_SECONDS
        self._is_again = True
        self._planned.clear()
        return True
