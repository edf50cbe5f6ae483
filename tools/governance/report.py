"""The result of a whole test run, written by the run and never by hand, and the identity of the tree that it ran on."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import msgspec

from tools.records import GENERATED

_GENERATED: Final = tuple(f"{name}/" for name in GENERATED)
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
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def identity(root: Path) -> str:
    """Return a digest of names, modes and contents; the same for the same tree, with or without git."""
    digest = hashlib.sha256()
    for name in sorted(name for name in set(names(root)) if not f"{name}/".startswith(_GENERATED)):
        path = root / name
        if path.is_symlink():
            mode, content = "link", os.fsencode(path.readlink())
        elif path.is_file():
            mode, content = "run" if os.access(path, os.X_OK) else "file", path.read_bytes()
        else:
            continue  # tracked, but deleted from the work tree
        digest.update(f"{name}\0{mode}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return digest.hexdigest()


def names(root: Path) -> list[str]:
    """Return the files that git tracks or would track, relative to the root; the same with or without git."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listing = b""
    return [os.fsdecode(name) for name in listing.split(b"\0") if name] or list(_walked(root))


def _walked(root: Path) -> Iterator[str]:
    """Yield what git would list, by the simple patterns of this repository's `.gitignore`."""
    ignored = [".git/"]
    if (root / ".gitignore").is_file():
        ignored += [line for line in (root / ".gitignore").read_text(encoding="utf-8").splitlines() if line]
    for folder, subfolders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        subfolders[:] = [name for name in subfolders if not _is_ignored(place / name, ignored)]
        yield from (str(place / name) for name in files if not _is_ignored(place / name, ignored))


def _is_ignored(path: Path, patterns: list[str]) -> bool:
    at_root, anywhere = f"/{path}", path.name
    return any(fnmatch(at_root if p.startswith("/") else anywhere, p.rstrip("/")) for p in patterns)
