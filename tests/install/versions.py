"""Packages of an index: the newest, or only those that a file pins by their hashes."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.install.index import ROOT
from tools.smoke.package import uv


def need_index() -> None:
    """Skip the test unless an index can be reached."""
    if (problem := _problem()) is not None:
        pytest.skip(f"no package index can be reached: {problem}")


@cache
def _problem() -> str | None:
    try:
        resolved(["redis"], limits=ROOT / "requirements" / "dev.txt")
    except RuntimeError as error:
        return str(error).splitlines()[-1]
    return None


def resolved(needs: Sequence[str], python: str = "3.11", *, limits: Path | None) -> dict[str, str]:
    """Return a version of each package, with all that they require, on that Python.

    It is the one that `limits` pins; without that file the newest that fits.
    """
    options = ("--no-header", "--no-annotate", "--python-version", python)
    limited = () if limits is None else ("--constraint", limits)
    lines = uv("pip", "compile", *options, *limited, "-", text="\n".join(needs)).splitlines()
    return {each.name: str(each.specifier) for each in map(Requirement, lines)}


def built_here(wheel: Path, extras: str) -> str:
    """Return the requirement of this wheel, by its hash, with these extras."""
    return f"hookseal[{extras}] @ {wheel.as_uri()}#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}"


class Installer:
    """Installs packages into a new environment of this Python, without caring for those that are there.

    They are only what `limits` pins, with its hashes, whatever has been released since; without that file the newest.
    """

    def __init__(self, python: Path, folder: Path, *, limits: Path | None) -> None:
        uv("venv", "--python", python, folder)
        self._of = ("--python", folder)
        self._limited = () if limits is None else ("--require-hashes", "--constraint", limits)

    def install(self, *needs: str) -> None:
        """Install these, which are pinned if there are limits; uv replaces what does not fit them."""
        uv("pip", "install", *self._of, *self._limited, *needs)

    def installed(self) -> dict[str, str]:
        """Return the version of each package."""
        lines = uv("pip", "freeze", *self._of).splitlines()
        return {each.name: str(each.specifier) for each in map(Requirement, lines)}

    def check(self) -> None:
        """Raise `RuntimeError` if a package misses another one, or has the wrong version of it."""
        uv("pip", "check", *self._of)
