"""The lanes with deliveries that wait in PostgreSQL, as far as one worker knows. Pure."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.dispatcher.core.looks import whole_again
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.lanes.round_robin import Key, RoundRobin

MOST_CROWDED: Final = 10_000  # lanes whose waiting deliveries this worker looks after
MOST_LOOKED_AT: Final = 256  # lanes in one look; the next look continues behind them
CALM_SECONDS: Final = 2.0  # a lane with room for all that waits, for so long, is no longer crowded
ASK_AGAIN_SECONDS: Final = 0.1
MOST_EMPTY_ASKED: Final = 256  # lanes that were empty when they were asked last, in `ASK_AGAIN_SECONDS`
EMPTY_ASKED_SECONDS: Final = 5.0  # each of `MOST_CROWDED` empty lanes is asked again sooner than that
START_OVER_SECONDS: Final = 1.0  # after which a lane is read from its oldest delivery again
BEGINNING: Final = "00000000-0000-0000-0000-000000000000"  # before the oldest delivery


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for the oldest waiting deliveries of a lane: at most `number`, with ids behind `after`."""

    key: Key
    number: int
    after: str = BEGINNING


@dataclass(slots=True)
class _Known:
    calm_since: float | None = None
    ended_at: float = float("-inf")
    is_empty: bool = False
    ask_at: float = float("-inf")
    after: str = BEGINNING  # the newest delivery that was fetched
    began_at: float = float("-inf")  # when the lane was asked last from its oldest delivery
    whole_at: float = float("-inf")  # when such a question may come again
    over_at: float = float("-inf")  # when one comes
    waits_since: float | None = None

    def note(self, now: float, *, has_all: bool) -> None:
        """Note whether all that waits has room. If not, the lane is calm only if it had all within the last second."""
        is_late = now >= self.ended_at + START_OVER_SECONDS
        if is_late and not (has_all and self.is_empty):
            self.calm_since = None
        if has_all:
            self.ended_at = now
            self.calm_since = now if self.calm_since is None else self.calm_since


class CrowdedLanes:
    """The crowded lanes that this worker looks after, and since when each has had room for all that waits.

    Each is in one of three places: `_turns` if it may be asked now, `_empty` if it was empty when it was asked last,
    else `_later`. The two that wait are in the order of their times. One that rests is in none.
    """

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}
        self._turns = RoundRobin()
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

    def learn_again(self, key: Key) -> None:
        """Look after this lane as if it were new: it is asked at the next look."""
        self.forget(key)
        self.learn(key)

    def parked(self, key: Key) -> None:
        """Look after this lane, which had no room for a ring: it is not calm."""
        self.learn(key)
        self.keep(key)

    def keep(self, key: Key) -> None:
        """Look after this lane further: it becomes calm no sooner than one that is new."""
        if (known := self._known.get(key)) is not None:
            known.calm_since = None

    def rest(self, key: Key) -> None:
        """Ask nothing of this lane until `expect`."""
        self._leave_places(key)

    def expect(self, key: Key) -> None:
        """Look after this lane, and ask for more of it at the next look."""
        self.learn(key)
        if (known := self._known.get(key)) is not None:
            known.ask_at, known.over_at, known.waits_since = float("-inf"), float("-inf"), None
            self._leave_places(key)
            self._turns.add(key)

    def forget(self, key: Key) -> None:
        """No longer look after this lane."""
        if self._known.pop(key, None) is not None:
            self._leave_places(key)

    def got_room(self, key: Key, now: float) -> bool:
        """Let the lane be asked again, unless it had fewer than asked for 0.1 s ago; return whether it is known."""
        known = self._known.get(key)
        if known is not None and now >= known.ask_at and self._later.pop(key, None) is not None:
            self._turns.add(key)
        return known is not None

    def turns(self, now: float) -> Iterator[Key]:
        """Yield the lanes that may be asked now, in the order of their turns. Each comes again after 0.1 s."""
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

    def may_wait(self, key: Key, now: float) -> bool:
        """Return whether the worker may still wait for more room before it asks this lane: at most 0.1 s."""
        known = self._known[key]
        if known.waits_since is None:
            known.waits_since = now
        return now < known.waits_since + ASK_AGAIN_SECONDS

    def no_room(self, key: Key, now: float, *, has_share: bool) -> None:
        """Note that this lane is not asked, because it or its tenant has no room for more.

        If this worker has no share of the endpoint's limit, another one looks after the lane.
        """
        if has_share:
            self._known[key].note(now, has_all=False)
        else:
            self.forget(key)

    def start_over(self, key: Key) -> None:
        """Read this lane from its oldest delivery: some that were fetched still wait in PostgreSQL."""
        if (known := self._known.get(key)) is not None:
            known.over_at = float("-inf")

    def ask(self, key: Key, room: int, here: int, now: float) -> Asked:
        """Return the question for this lane: `room` deliveries that were not fetched yet. `here` of it wait here.

        A question continues behind what was fetched. Once a second, and after the end, it begins at the oldest
        delivery, since older ones may have come; then it also covers the `here` deliveries that wait in this worker.
        If that takes long, as while an old transaction is open, it does so less often, each 10 s (`core/looks.py`).
        """
        known = self._known[key]
        known.waits_since = None
        if now < known.over_at and known.after != BEGINNING:
            return Asked(key, room, known.after)
        known.began_at = now
        return Asked(key, here + room)

    def found(self, asked: Sequence[Asked], rings: Sequence[Ring], now: float) -> None:
        """Note which of the lanes that were asked had fewer than asked for, and which had none."""
        numbers: dict[Key, int] = {}
        newest: dict[Key, str] = {}
        for ring in rings:
            of: Key = (ring.tenant_id, ring.endpoint_id)
            numbers[of] = numbers.get(of, 0) + 1
            newest[of] = ring.delivery_id
        for each in asked:
            known = self._known.get(each.key)
            if known is None:
                continue
            has = numbers.get(each.key, 0)
            is_end = has < each.number
            if is_whole := each.after == BEGINNING:
                known.whole_at = whole_again(known.began_at, now)
            known.after = newest.get(each.key, known.after)
            known.over_at = known.whole_at if is_end else max(known.began_at + START_OVER_SECONDS, known.whole_at)
            known.note(now, has_all=is_end)
            if self._later.pop(each.key, None) is None:  # it is to be asked again already
                continue
            known.is_empty = is_end and not has and (is_whole or known.is_empty)
            if is_end:
                known.ask_at, known.waits_since = now + ASK_AGAIN_SECONDS, now
                (self._empty if known.is_empty else self._later)[each.key] = known.ask_at
            else:
                self._turns.add(each.key)

    def calm(self, now: float) -> list[Key]:
        """Return the lanes that have had room for all that waits, for a while, until the last look at them.

        That look is no older than a second, or `EMPTY_ASKED_SECONDS` if nothing waited then.
        """
        return [
            key
            for keys, oldest in ((self._later, now - START_OVER_SECONDS), (self._empty, now - EMPTY_ASKED_SECONDS))
            for key in keys
            if (known := self._known[key]).calm_since is not None
            and known.ended_at > oldest
            and now - known.calm_since >= CALM_SECONDS
        ]

    def _leave_places(self, key: Key) -> None:
        self._turns.discard(key)
        self._later.pop(key, None)
        self._empty.pop(key, None)

    def _move(self, waiting: OrderedDict[Key, float], now: float, most: int) -> int:
        """Let at most so many of those whose time has come be asked, and return how many."""
        moved = 0
        while waiting and moved < most and next(iter(waiting.values())) <= now:
            self._turns.add(waiting.popitem(last=False)[0])
            moved += 1
        return moved
