"""The record of a run of this tree on this machine."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tools.governance.evidence import FOLDER, Counts, Figure, Machine, Record, misses
from tools.governance.tree import GENERATED

_WRITTEN: Final = ("docs/proof", "docs/scaling.md")


def record_of(root: Path, name: str, figures: Mapping[str, Figure], counts: Counts | None = None) -> Record:
    """Return the record of a run for that id. Raises `CalledProcessError` outside a git work tree."""
    return Record(
        id=name,
        commit=commit_of(root),
        is_dirty=is_dirty(root),
        machine=Machine(cpu=cpu_model(), cpus=os.cpu_count() or 0, python=platform.python_version()),
        figures=dict(figures),
        is_met=not misses(name, figures, counts),
        counts={scenario: dict(counted) for scenario, counted in (counts or {}).items()},
    )


def commit_of(root: Path) -> str:
    """Return the checked-out commit. Raises `CalledProcessError` outside a git work tree."""
    return _git(root, "rev-parse", "HEAD")


def is_dirty(root: Path) -> bool:
    """Return whether there are uncommitted changes, except in what runs write.

    Raises `CalledProcessError` outside a git work tree.
    """
    left_out = [f":(exclude){generated}" for generated in (FOLDER, *_WRITTEN, *GENERATED)]
    return bool(_git(root, "status", "--porcelain", "--", ".", *left_out))


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def cpu_model() -> str:
    """Return the model of the processor, as Linux calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
