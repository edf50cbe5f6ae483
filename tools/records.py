"""What a measurement stores and prints: commit, machine, percentiles, and tables in Markdown."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[1]
EVIDENCE: Final = "docs/EVIDENCE"
# Written from the report of the tests, which names the tree: they are no part of what the report is about.
GENERATED: Final = (
    *("docs/TRACEABILITY.md", "docs/WORK_ITEMS", "docs/EVIDENCE/secrets"),
    "docs/proof/providers.md",
)
_WRITTEN: Final = (EVIDENCE, "docs/proof", "docs/scaling.md", *GENERATED)
SOURCE: Final = "src/hookseal"
_MB: Final = 1_024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine of a run, without host names and paths."""

    cpu: str
    cpus: int
    memory_mb: int
    kernel: str
    python: str
    postgresql: str
    redis: str


def machine(postgresql: str, redis: str) -> Machine:
    """Return this machine, with these versions of the servers."""
    return Machine(
        cpu=cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MB,
        kernel=platform.release().split("-")[0],
        python=platform.python_version(),
        postgresql=postgresql,
        redis=redis,
    )


def cpu_model() -> str:
    """Return the model of the processor, as Linux calls it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit_of(root: Path) -> str:
    """Return the checked-out commit. Raises `CalledProcessError` outside a git work tree."""
    return _git(root, "rev-parse", "HEAD")


def is_dirty(root: Path) -> bool:
    """Return whether there are uncommitted changes, except in what runs write."""
    return bool(_git(root, "status", "--porcelain", "--", ".", *(f":(exclude){name}" for name in _WRITTEN)))


def digest_of(root: Path, commit: str, *files: str) -> str | None:
    """Return a digest of these files and folders as that commit has them, or None if git does not know the commit."""
    try:
        listing = _git(root, "ls-tree", "-r", commit, "--", *files)
    except (OSError, subprocess.CalledProcessError):
        return None
    return hashlib.sha256(listing.encode()).hexdigest()


def blobs_of(root: Path, commit: str) -> dict[str, str] | None:
    """Return git's digest of each file as that commit has it, by its path, or None if git does not know the commit."""
    try:
        listing = _git(root, "ls-tree", "-r", commit)
    except (OSError, subprocess.CalledProcessError):
        return None
    # Each line is: mode, kind, digest; a tab; the path.
    return {path: kind.split()[2] for kind, _, path in (line.partition("\t") for line in listing.splitlines())}


def text_of(root: Path, blob: str) -> str:
    """Return the text of the file with that digest. Raises `CalledProcessError` if git has none."""
    return _git(root, "cat-file", "blob", blob)


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def stored(record: object) -> str:
    """Return a record in its stored form."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1).decode() + "\n"


def write(root: Path, texts: dict[str, str]) -> None:
    """Write these files, by their paths below the root, and say so."""
    for name, text in texts.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file.relative_to(ROOT) if file.is_relative_to(ROOT) else name}", file=sys.stderr)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed. There must be a value."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def number(value: float | None, unit: str = "") -> str:
    """Return a value with its significant digits and its unit, or a dash if there is none."""
    if value is None:
        return "-"
    size = abs(value)
    digits = 0 if not value or size >= 100 else 2 if size < 10 else 1  # noqa: PLR2004
    return f"{value:,.{digits}f}{'' if unit in {'', 'x'} else ' '}{unit}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column has names, and the others numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
