"""docs/requirements.md, read: the id, the status, the parts and the text of each requirement."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

PAGE: Final = "docs/requirements.md"
ROW: Final = re.compile(r"\| *(?P<id>[A-Z]+-\d+) *\|(?P<status>[^|]*)(?:\|(?P<text>(?:\\\||[^|])*))?")
_STATUS: Final = re.compile(r"(?P<status>planned|claimed)|partial: (?P<parts>[a-z0-9-]+(?:, [a-z0-9-]+)*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One requirement. `status` is `planned`, `claimed` or `partial`; only a partial one names parts."""

    id: str
    status: str
    parts: tuple[str, ...] = ()
    text: str = ""

    @property
    def group(self) -> str:
        """The letters before the number, for instance `SEC`."""
        return self.id.partition("-")[0]


def parse(page: str) -> list[Requirement]:
    """Return every requirement of the page, in order. Raises `ValueError` with all problems."""
    found, problems = list[Requirement](), list[str]()
    for number, line in enumerate(page.splitlines(), start=1):
        if row := ROW.match(line):
            status = _STATUS.fullmatch(row["status"].strip())
            if status is None:
                problems.append(f"line {number}: {row['id']} must be `planned`, `claimed` or `partial: part, part`")
            else:
                parts = tuple(status["parts"].split(", ")) if status["parts"] else ()
                text, named = (row["text"] or "").strip(), status["status"] or "partial"
                found.append(Requirement(id=row["id"], status=named, parts=parts, text=text))
    problems += [f"{name} is in more than one row" for name, times in Counter(r.id for r in found).items() if times > 1]
    if not found:
        problems.append("the page has no row of the form `| SEC-01 | planned | ... |`")
    if problems:
        raise ValueError("\n".join(problems))
    return found
