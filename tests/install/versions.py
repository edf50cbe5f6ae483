"""What the package index of this machine has."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.smoke.package import uv


def need_index() -> None:
    """Skip the test unless an index can be reached."""
    if (problem := _problem()) is not None:
        pytest.skip(f"no package index can be reached: {problem}")


@cache
def _problem() -> str | None:
    try:
        resolved(["redis"])
    except RuntimeError as error:
        return str(error).splitlines()[-1]
    return None


def resolved(needs: Sequence[str], python: str = "3.11") -> dict[str, str]:
    """Return the newest version of each package that fits, with all that they require, on that Python."""
    options = ("--no-header", "--no-annotate", "--python-version", python)
    lines = uv("pip", "compile", *options, "-", text="\n".join(needs)).splitlines()
    return {each.name: str(each.specifier) for each in map(Requirement, lines)}


class Installer:
    """Installs the newest packages into a new environment of this Python, without caring for those that are there."""

    def __init__(self, python: Path, folder: Path) -> None:
        uv("venv", "--python", python, folder)
        self._of = ("--python", folder)

    def install(self, *needs: str) -> None:
        """Install these; uv replaces what does not fit them."""
        uv("pip", "install", *self._of, *needs)

    def installed(self) -> dict[str, str]:
        """Return the version of each package."""
        lines = uv("pip", "freeze", *self._of).splitlines()
        return {each.name: str(each.specifier) for each in map(Requirement, lines)}

    def check(self) -> None:
        """Raise `RuntimeError` if a package misses another one, or has the wrong version of it."""
        uv("pip", "check", *self._of)
