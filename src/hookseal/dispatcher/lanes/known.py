"""The lanes of which one worker keeps the state, and its share in the limit of each. Pure."""

from collections import OrderedDict
from collections.abc import Callable, Container
from typing import Final

from hookseal.dispatcher.core.model import Pace
from hookseal.dispatcher.lanes.fleet import Fleet
from hookseal.dispatcher.lanes.lane import Lane
from hookseal.dispatcher.lanes.rotation import Key

MOST_LANES: Final = 10_000  # idle lanes whose state is kept


class KnownLanes:
    """The lanes by endpoint. `ceiling` is the limit of an endpoint without one of its own, for the whole fleet.

    A lane with rings that wait, which is one of `waiting`, is kept.
    """

    def __init__(self, ceiling: int, fleet: Callable[[], Fleet], waiting: Container[Key]) -> None:
        self._default = ceiling
        self._fleet = fleet
        self._shared = fleet()
        self._waiting = waiting
        self._lanes: OrderedDict[Key, Lane] = OrderedDict()
        self._now = float("-inf")  # the time of the last claim

    def __len__(self) -> int:
        return len(self._lanes)

    def __getitem__(self, key: Key) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            ceiling = self._fleet().share(self._default, key[1])
            lane = self._lanes[key] = Lane(ceiling, limit=float(max(ceiling, 1)), threshold=float(max(ceiling, 1)))
            self._drop_idle()
        return lane

    def configure(self, key: Key, pace: Pace, number: int, now: float) -> int:
        """Take over the settings that a claim of so many has read; return how many of these they do not allow."""
        self._now = now
        lane = self[key]
        is_new, most, rate = not lane.is_known or pace != lane.pace, lane.most, lane.rate
        lane.configure(pace, self._fleet(), key[1], default=self._default)
        return lane.lowered(number, now, most_before=most, rate_before=rate) if is_new else 0

    def read(self, key: Key, pace: Pace, now: float) -> bool:
        """Take over the settings that a look has read, if they are new; return whether they were taken over.

        If requests have begun, that is left to the claims: a claim that runs gives back what lower limits do not allow.
        """
        lane = self[key]
        is_new = not lane.in_flight and (pace != lane.pace or not lane.is_known)
        if is_new:  # each look would otherwise restart the count of tries that found the row locked
            self.configure(key, pace, 0, now)
        return is_new

    def share_again(self) -> None:
        """If workers came or went, take another share in the limit of each lane: one without a share claims nothing."""
        fleet = self._fleet()
        if fleet != self._shared:
            self._shared = fleet
            for key, lane in self._lanes.items():
                lane.share(fleet, key[1], default=self._default)

    def _drop_idle(self) -> None:
        """Forget the oldest lane if there are too many, unless something would be lost."""
        for _ in range(min(len(self._lanes) - MOST_LANES, 2)):  # two, so that those that are kept do not add up
            key, lane = next(iter(self._lanes.items()))
            if lane.is_idle(self._now) and key not in self._waiting:
                del self._lanes[key]
            else:
                self._lanes.move_to_end(key)
