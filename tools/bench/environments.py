"""A virtual environment for each contender that conflicts with hookseal's, created from hashed pins at first use."""

import hashlib
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Final, NamedTuple

from tools.records import ROOT

_ENVIRONMENTS: Final = ROOT / ".bench"
_LOCKS: Final = ROOT / "requirements" / "bench"
_SECONDS: Final = 300


class NotInstalled(Exception):
    """A contender that cannot be measured on this machine; the text says why."""


class Environment(NamedTuple):
    """A Python that has the contender, and its version."""

    python: Path
    version: str


def ours(package: str) -> Environment:
    """Return the environment of hookseal, with the version of that package in it."""
    return Environment(Path(sys.executable), _version(package, sys.path))


def of(contender: str) -> Environment:
    """Return the environment of a contender, created first if it is missing or its lock has changed.

    Raises `NotInstalled`.
    """
    folder, lock = _ENVIRONMENTS / contender, _LOCKS / f"{contender}.txt"
    python, stamp = folder / "bin" / "python", folder / "made-from"
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.is_file() or stamp.read_text(encoding="ascii") != wanted:
        print(f"  creating the environment of {contender}, once ...", file=sys.stderr, flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run("sh", str(ROOT / "tools" / "install.sh"), str(python), str(lock))
        _run(str(python), "-m", "pip", "check")
        stamp.write_text(wanted, encoding="ascii")
    return Environment(python, _version(contender, [str(path) for path in folder.glob("lib/*/site-packages")]))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=_SECONDS)
    except subprocess.CalledProcessError as error:
        message = " ".join((error.stderr or error.stdout).split("\n")[-3:]).strip()
        raise NotInstalled(f"its environment could not be made: {message}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"its environment could not be made: {type(error).__name__}") from None


def _version(package: str, path: list[str]) -> str:
    return next((found.version for found in distributions(name=package, path=path)), "unknown")
