"""Tries mutants in copies of the repository: the checkout itself is never changed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Final

from tools.mutants.table import Mutant

_LEFT_OUT: Final = (".git", ".release", ".site", ".venv", ".reports", "dist", "__pycache__", ".*_cache", ".hypothesis")
_SECONDS: Final = 600  # the tests of one mutant take seconds; a longer run hangs
_FAILED: Final = re.compile(r"\b[1-9][0-9]* failed\b")
_NAMED: Final = re.compile(r"^FAILED (?P<test>tests/[^\s\[]+)", re.MULTILINE)


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

    @property
    def killed_by(self) -> str | None:
        """The test that failed, without its parameters; None if no test ran to a failure."""
        named = _NAMED.search(self.out) if self.verdict is Verdict.KILLED else None
        return None if named is None else named["test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One mutant, how the run of its tests ended, and how many seconds that took."""

    mutant: Mutant
    ended: Ended
    seconds: float


def try_all(root: Path, wanted: Sequence[Mutant], *, jobs: int, report: Callable[[Trial], None]) -> None:
    """Try these mutants in that many copies of the repository at once, and report each, one at a time.

    Mutants whose tests are in the same files follow each other. These tests run once without a mutant before; if they
    do not pass, each of these mutants is broken.
    """
    waiting, lock = deque(_by_test_files(wanted)), Lock()

    def work() -> None:
        with copied(root) as tree:
            while waiting:
                for trial in _trials(tree, waiting.popleft()):
                    with lock:
                        report(trial)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for each in [pool.submit(work) for _ in range(min(jobs, len(waiting)))]:
                each.result()
        finally:
            waiting.clear()  # after an error or Ctrl-C nothing new begins


def _by_test_files(wanted: Sequence[Mutant]) -> list[list[Mutant]]:
    groups: dict[tuple[str, ...], list[Mutant]] = {}
    for mutant in wanted:
        groups.setdefault(mutant.test_files, []).append(mutant)
    return list(groups.values())


def _trials(tree: Path, group: Sequence[Mutant]) -> Iterator[Trial]:
    without = ran(tree, sorted({test for mutant in group for test in mutant.tests}), seconds=None)
    for mutant in group:
        began = time.monotonic()
        ended = tried(tree, mutant) if without.code == 0 else Ended(None, f"without a mutant:\n{without.out}")
        yield Trial(mutant=mutant, ended=ended, seconds=time.monotonic() - began)


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
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", f"--rootdir={tree}"]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
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
