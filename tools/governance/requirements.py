"""The requirements, read from the tables of `docs/requirements.md`."""

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_ROW: Final = re.compile(r"\| *(?P<id>[A-Z]+-\d+) *\|(?P<rest>.*)")
_STATUS: Final = re.compile(r"(?P<status>planned|claimed)|partial: (?P<parts>[a-z0-9-]+(?:, [a-z0-9-]+)*)")


class Status(StrEnum):
    """The status of a requirement."""

    PLANNED = "planned"
    PARTIAL = "partial"
    CLAIMED = "claimed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One requirement and its status; only a partial one names parts."""

    id: str
    status: Status
    parts: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The letters before the number, for instance `SEC`."""
        return self.id.partition("-")[0]


class UnreadableRequirements(Exception):
    """A row of `docs/requirements.md` is malformed: its editor must correct it."""


def parse(page: str) -> tuple[Requirement, ...]:
    """Return every requirement of the page, in order. Raises `UnreadableRequirements` with all problems."""
    found: list[Requirement] = []
    problems: list[str] = []
    for number, line in enumerate(page.splitlines(), start=1):
        if row := _ROW.fullmatch(line):
            requirement = _requirement(row["id"], row["rest"].split("|")[0].strip())
            if requirement is None:
                problems.append(f"line {number}: {row['id']} must be `planned`, `claimed` or `partial: part, part`")
            else:
                found.append(requirement)
    problems += [f"{name} is in more than one row" for name, n in Counter(r.id for r in found).items() if n > 1]
    if not found:
        problems.append("the page has no row of the form `| SEC-01 | planned | ... |`")
    if problems:
        raise UnreadableRequirements("\n".join(problems))
    return tuple(found)


def _requirement(name: str, status: str) -> Requirement | None:
    match = _STATUS.fullmatch(status)
    if match is None:
        return None
    if match["status"]:
        return Requirement(id=name, status=Status(match["status"]))
    return Requirement(id=name, status=Status.PARTIAL, parts=tuple(match["parts"].split(", ")))
