"""The lanes with deliveries that wait in PostgreSQL, as far as one worker knows. Pure."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.dispatcher.lanes.rotation import Key, Rotation
from hookseal.dispatcher.model import Ring

MOST_CROWDED: Final = 10_000  # lanes whose waiting deliveries this worker looks after
MOST_LOOKED_AT: Final = 256  # lanes in one look; the next look continues behind them
EMPTY_SECONDS: Final = 2.0  # a lane that is empty for so long is no longer crowded
ASK_AGAIN_SECONDS: Final = 0.1
MOST_EMPTY_ASKED: Final = 256  # lanes that were empty when they were asked last, in `ASK_AGAIN_SECONDS`


@dataclass(slots=True)
class _Known:
    empty_since: float | None = None
    ask_at: float = float("-inf")


class CrowdedLanes:
    """The crowded lanes that this worker looks after, and when each was last found empty.

    Each is in one of three places: `_turns` if it may be asked now, `_empty` if it was empty when it was asked last,
    else `_later`. The two that wait are in the order of their times.
    """

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}
        self._turns = Rotation()
        self._later: OrderedDict[Key, float] = OrderedDict()
        self._empty: OrderedDict[Key, float] = OrderedDict()
        self._empty_left = 0
        self._empty_until = float("-inf")

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def learn(self, key: Key) -> None:
        """Look after this lane."""
        if len(self._known) < MOST_CROWDED and key not in self:
            self._known[key] = _Known()
            self._turns.add(key)

    def expect(self, key: Key) -> None:
        """Look after this lane, and ask for more of it at the next look."""
        self.forget(key)
        self.learn(key)

    def forget(self, key: Key) -> None:
        """No longer look after this lane: nothing of it waits in PostgreSQL."""
        if self._known.pop(key, None) is not None:
            self._turns.discard(key)
            self._later.pop(key, None)
            self._empty.pop(key, None)

    def got_room(self, key: Key, now: float) -> bool:
        """Let the lane be looked at again, unless it had fewer than it was asked for; return whether it is known."""
        known = self._known.get(key)
        if known is not None and now >= known.ask_at and self._later.pop(key, None) is not None:
            self._turns.add(key)
        return known is not None

    def turns(self, now: float) -> Iterator[Key]:
        """Yield lanes that may have more, those first whose turn it is. A lane that is then not asked comes later."""
        self._move(self._later, now, MOST_LOOKED_AT)
        if now >= self._empty_until:
            self._empty_left, self._empty_until = MOST_EMPTY_ASKED, now + ASK_AGAIN_SECONDS
        self._empty_left -= self._move(self._empty, now, self._empty_left)
        for _ in range(min(len(self._turns), MOST_LOOKED_AT)):
            key = self._turns.first()
            self._turns.pass_turn(key)
            self._turns.discard(key)
            self._later[key] = now + ASK_AGAIN_SECONDS
            yield key

    def found(self, asked: Sequence[tuple[Key, int]], rings: Sequence[Ring], now: float) -> None:
        """Note which of the lanes that were asked had fewer than asked for, and which had none."""
        numbers: dict[Key, int] = {}
        for ring in rings:
            of: Key = (ring.tenant_id, ring.endpoint_id)
            numbers[of] = numbers.get(of, 0) + 1
        for key, number in asked:
            known = self._known.get(key)
            if known is None or self._later.pop(key, None) is None:  # it is to be asked again already
                continue
            has = numbers.get(key, 0)
            if has:
                known.empty_since = None
            elif known.empty_since is None:
                known.empty_since = now
            if has >= number:
                self._turns.add(key)
            else:
                known.ask_at = now + ASK_AGAIN_SECONDS
                (self._later if has else self._empty)[key] = known.ask_at

    def emptied(self, now: float) -> list[Key]:
        """Return the lanes that have been empty for a while."""
        return [
            key
            for key, known in self._known.items()
            if known.empty_since is not None and now - known.empty_since >= EMPTY_SECONDS
        ]

    def _move(self, waiting: OrderedDict[Key, float], now: float, most: int) -> int:
        """Let at most so many of those whose time has come be asked, and return how many."""
        moved = 0
        while waiting and moved < most and next(iter(waiting.values())) <= now:
            self._turns.add(waiting.popitem(last=False)[0])
            moved += 1
        return moved
