"""How the story ended, and what decides whether it was true. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What became of the deliveries of one endpoint. `verified` counts those with a valid signature."""

    tenant: str
    endpoint: str
    deliveries: int
    delivered: int
    verified: int
    refused: int

    @property
    def holds(self) -> bool:
        """Whether there were deliveries, each verified and on record, and nothing was refused."""
        return self.deliveries > 0 and self.deliveries == self.delivered == self.verified and self.refused == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What was seen in one chapter: as one sentence, and as facts. `missing` says what should have been seen too."""

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
    """How the story ended. `events` are those that the lines count."""

    events: int
    lines: tuple[Line, ...]
    chapters: tuple[Chapter, ...]
    seconds: float

    @property
    def all_verified(self) -> bool:
        """Whether every endpoint got deliveries, and each was verified there and is on record, and none was refused."""
        return bool(self.lines) and all(line.holds for line in self.lines)

    @property
    def holds(self) -> bool:
        """Whether all verified, and every chapter held."""
        return self.all_verified and bool(self.chapters) and all(chapter.holds for chapter in self.chapters)


def lacking(*expected: tuple[bool, str]) -> tuple[str, ...]:
    """Return, of what was expected, the sentences of what did not come true."""
    return tuple(sentence for came_true, sentence in expected if not came_true)


def none_refused(refused: int) -> tuple[bool, str]:
    """Return what is expected of a receiver that refused so many requests, for `lacking`."""
    return refused == 0, f"a signature that holds in each request: {refused} refused"
