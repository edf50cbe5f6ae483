"""The lanes with deliveries that wait in PostgreSQL, as far as one worker knows. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.dispatcher.lanes.rotation import Key, Rotation
from hookseal.dispatcher.model import Ring

MOST_CROWDED: Final = 10_000  # lanes whose waiting deliveries this worker looks after
MOST_LOOKED_AT: Final = 256  # lanes in one look; the next look continues behind them
EMPTY_SECONDS: Final = 2.0  # a lane that is empty for so long is no longer crowded
ASK_AGAIN_SECONDS: Final = 0.1


@dataclass(slots=True)
class _Known:
    empty_since: float | None = None
    ask_at: float = float("-inf")


class CrowdedLanes:
    """The crowded lanes that this worker looks after, and when each was last found empty."""

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}
        self._turns = Rotation()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def learn(self, key: Key) -> None:
        """Look after this lane."""
        if len(self._known) < MOST_CROWDED and key not in self._known:
            self._known[key] = _Known()
            self._turns.add(key)

    def expect(self, key: Key) -> None:
        """Look after this lane, and ask for more of it at the next look."""
        self.learn(key)
        if (known := self._known.get(key)) is not None:
            known.ask_at, known.empty_since = float("-inf"), None

    def forget(self, key: Key) -> None:
        """No longer look after this lane: nothing of it waits in PostgreSQL."""
        if self._known.pop(key, None) is not None:
            self._turns.discard(key)

    def turns(self, now: float) -> Iterator[Key]:
        """Yield lanes that may have more, those first whose turn it is."""
        for _ in range(min(len(self._turns), MOST_LOOKED_AT)):
            key = self._turns.first()
            self._turns.pass_turn(key)
            if now >= self._known[key].ask_at:
                yield key

    def found(self, asked: Sequence[tuple[Key, int]], rings: Sequence[Ring], now: float) -> None:
        """Note which of the lanes that were asked had fewer than asked for, and which had none."""
        numbers: dict[Key, int] = {}
        for ring in rings:
            of: Key = (ring.tenant_id, ring.endpoint_id)
            numbers[of] = numbers.get(of, 0) + 1
        for key, number in asked:
            known = self._known.get(key)
            if known is None:
                continue
            if numbers.get(key, 0) < number:
                known.ask_at = now + ASK_AGAIN_SECONDS
            if numbers.get(key, 0):
                known.empty_since = None
            elif known.empty_since is None:
                known.empty_since = now

    def emptied(self, now: float) -> list[Key]:
        """Return the lanes that have been empty for a while."""
        return [
            key
            for key, known in self._known.items()
            if known.empty_since is not None and now - known.empty_since >= EMPTY_SECONDS
        ]
