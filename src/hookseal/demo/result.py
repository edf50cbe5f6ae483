"""The result of the demo, and whether it passed. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The deliveries of one endpoint. `verified` counts those with a valid signature."""

    tenant: str
    endpoint: str
    deliveries: int
    delivered: int
    verified: int
    refused: int

    @property
    def holds(self) -> bool:
        """Whether there were deliveries, all verified and recorded as delivered, and none was refused."""
        return self.deliveries > 0 and self.deliveries == self.delivered == self.verified and self.refused == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What one chapter saw: as a sentence, and as facts. `missing` says what it expected but did not see."""

    name: str
    detail: str
    seen: dict[str, object]
    missing: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of the demo. `events` is the number of events that the lines count."""

    events: int
    lines: tuple[Line, ...]
    chapters: tuple[Chapter, ...]
    seconds: float

    @property
    def all_verified(self) -> bool:
        """Whether every endpoint had deliveries, all of them were verified and recorded, and none was refused."""
        return bool(self.lines) and all(line.holds for line in self.lines)

    @property
    def holds(self) -> bool:
        """Whether all deliveries verified, and every chapter saw what it expected."""
        return self.all_verified and bool(self.chapters) and all(chapter.holds for chapter in self.chapters)


def failed_checks(*checks: tuple[bool, str]) -> tuple[str, ...]:
    """Return the sentences of the checks that are false."""
    return tuple(sentence for is_true, sentence in checks if not is_true)


def nothing_refused(refused: int) -> tuple[bool, str]:
    """Return the check that a receiver refused no request, for `failed_checks`."""
    return refused == 0, f"a valid signature in each request: {refused} refused"
