"""The fault that a worker of the fault suite causes in itself, and the step of a delivery at which it does."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

STEPS: Final = ("claim", "admit", "resolve", "compose", "sign", "send", "classify", "decide", "record", "report")
POINTS: Final = tuple(f"{step}.{side}" for step in STEPS for side in ("before", "after"))


class Action(StrEnum):
    """`kill` is SIGKILL, `pause` is SIGSTOP; `stall` blocks the event loop for `seconds`."""

    KILL = "kill"
    PAUSE = "pause"
    STALL = "stall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault caused once, when the point is passed for the `number`th time. As text: `send.after@3=stall:9.5`."""

    point: str
    action: Action
    number: int = 1
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.point}@{self.number}={self.action}:{self.seconds:g}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the fault of that text. Raises `ValueError`."""
        where, _, what = text.partition("=")
        point, _, number = where.partition("@")
        action, _, seconds = what.partition(":")
        if point not in POINTS:
            raise ValueError(f"there is no point {point!r}")
        return cls(point=point, action=Action(action), number=int(number or 1), seconds=float(seconds or 0))
