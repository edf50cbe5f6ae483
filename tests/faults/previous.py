"""The version before this one, as its wheel installs it."""

import re
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hookseal.postgres.schema import revision
from tools.records import ROOT
from tools.release import build

MIGRATION: Final = f"src/hookseal/postgres/schema/versions/rev_{revision.EXPECTED}.py"
_KNOWS: Final = re.compile(r'^EXPECTED: Final = "(?P<revision>\d+)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """The unpacked wheel, a PYTHONPATH, and the newest revision of the schema that this version knows."""

    path: str
    knows: str


def previous_commit(root: Path = ROOT) -> str | None:
    """Return the newest tag of a version before HEAD, else the last commit before the newest revision was begun.

    None without git, or in a clone without the whole history.
    """
    tags, of_head = (
        _git(root, "tag", option, "HEAD", "--sort=-version:refname", "v*") for option in ("--merged", "--points-at")
    )
    begun = _git(root, "log", "--diff-filter=A", "--format=%H", "--", MIGRATION)
    candidates = [*(tag for tag in tags if tag not in of_head), *(f"{commit}^" for commit in begun[-1:])]
    known = (each for each in candidates if _git(root, "rev-parse", "--verify", "--quiet", f"{each}^{{commit}}"))
    return next(known, None)


def unpacked(commit: str, folder: Path) -> Previous:
    """Build the wheel of that commit in the folder, and unpack it there."""
    folder.mkdir()
    _, wheel = build(ROOT, commit, folder)
    path = folder / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(path)
    found = _KNOWS.search((path / "hookseal/postgres/schema/revision.py").read_text(encoding="utf-8"))
    assert found is not None
    return Previous(path=str(path), knows=found["revision"])


def _git(root: Path, *arguments: str) -> list[str]:
    try:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
