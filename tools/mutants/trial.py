"""Tries mutants one after the other in a copy of the repository: the checkout itself is never changed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tools.mutants.table import Mutant

_LEFT_OUT: Final = (".git", ".release", ".venv", ".reports", "dist", "__pycache__", ".*_cache", ".hypothesis")
_SECONDS: Final = 600  # the tests of one mutant take seconds; a longer run hangs
_FAILED: Final = re.compile(r"\b[1-9][0-9]* failed\b")


class Verdict(StrEnum):
    """The result of a mutant. `broken`: no test ran to a failure, so nothing is known."""

    KILLED = "killed"
    SURVIVED = "survived"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run of tests ended: its exit code, None after a time-out, and its output."""

    code: int | None
    out: str

    @property
    def verdict(self) -> Verdict:
        """The verdict on the mutant."""
        if self.code == 0:
            return Verdict.SURVIVED
        if self.code == 1 and _FAILED.search(self.out):
            return Verdict.KILLED
        return Verdict.BROKEN


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """Provide a copy of the repository without build products, which is then removed."""
    with tempfile.TemporaryDirectory(prefix="hookseal-mutants-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(root, tree, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        yield tree


def ran(tree: Path, tests: Sequence[str], *, seconds: float | None) -> Ended:
    """Run the tests of the copy on the code of the copy, up to the first failure, for at most that many seconds."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Ended(None, f"it took longer than {seconds:g} s")
    return Ended(done.returncode, done.stdout + done.stderr)


def tried(tree: Path, mutant: Mutant) -> Ended:
    """Make the change in the copy, run its tests, and undo the change."""
    path = tree / mutant.file
    text = path.read_text(encoding="utf-8")
    _write(path, mutant.changed(text))
    try:
        return ran(tree, mutant.tests, seconds=_SECONDS)
    finally:
        _write(path, text)


def _write(path: Path, text: str) -> None:
    """Write the file with a new time: Python checks bytecode by the size and the whole second of its source."""
    later = path.stat().st_mtime + 2
    path.write_text(text, encoding="utf-8")
    os.utime(path, (later, later))
