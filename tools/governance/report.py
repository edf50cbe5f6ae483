"""The result of a whole test run: one entry for each test, written by the run and never by hand."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

REPORT: Final = Path(".reports/tests.json")


class Outcome(StrEnum):
    """How a test ended. Only `passed` proves anything."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    XFAILED = "xfailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A requirement, or one part of it, that a test is marked with."""

    id: str
    part: str | None = None

    def __str__(self) -> str:
        """Return it as people write it, for instance `SEC-01 (db)`."""
        return f"{self.id} ({self.part})" if self.part else self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test of the run; a module that skips itself as a whole, or cannot be imported, is a case of its own."""

    nodeid: str
    outcome: Outcome
    marks: tuple[Mark, ...] = ()

    @property
    def name(self) -> str:
        """The node id without the values of a parametrised test."""
        return self.nodeid.partition("[")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All tests of one full run, and the identity of the tree that they ran on."""

    tree: str
    cases: tuple[Case, ...]


def write(path: Path, report: Report) -> None:
    """Write the report to that file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Report | None:
    """Return the report in that file, or None if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Report(tree=content["tree"], cases=tuple(_case(case) for case in content["cases"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _case(content: dict[str, object]) -> Case:
    marks = content["marks"]
    if not isinstance(marks, list):
        raise TypeError("marks")
    return Case(
        nodeid=str(content["nodeid"]),
        outcome=Outcome(str(content["outcome"])),
        marks=tuple(Mark(**mark) for mark in marks),
    )
