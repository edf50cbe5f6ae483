"""Each extra beside the newest packages of a product, on each Python: which of these packages does it move?"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from packaging.version import Version

from tests.install.index import ROOT
from tests.install.pythons import SUPPORTED, THIS, oldest
from tests.install.versions import Installer, resolved

PRODUCT: Final = ("boto3", "django", "fastapi", "pydantic", "redis", "sqlalchemy", "uvicorn")
WORKER: Final = "worker"  # whose place is an environment of its own: arq requires redis < 6
TOGETHER: Final = "together"  # all other extras at once

# Each package that has another version afterwards, or is gone: both versions.
Moved = Mapping[str, tuple[str, str | None]]


def beside() -> list[str]:
    """Return the extras that belong into the environment of a product."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(set(project["optional-dependencies"]) - {WORKER})


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> Moved:
    """Return what has moved between these versions."""
    return {name: (pin, after.get(name)) for name, pin in before.items() if after.get(name) != pin}


def resolutions(python: str, wheel: Path) -> dict[str, Moved]:
    """Return what the other extras together move, and what `worker` moves, on this Python: nothing is installed."""
    product = resolved(PRODUCT, python)
    asked = {TOGETHER: ",".join(beside()), WORKER: WORKER}
    return {
        name: moved(product, resolved([*PRODUCT, f"hookseal[{extras}] @ {wheel.as_uri()}"], python))
        for name, extras in asked.items()
    }


def installations(python: Path, wheel: Path, folder: Path) -> dict[str, Moved]:
    """Install each extra into the environment of a product, one after the other, and return what each moved.

    `worker` is installed into an environment of its own. Raises `RuntimeError` if packages do not fit each other.
    """
    environment = Installer(python, folder / "product")
    environment.install(*PRODUCT)
    product, found = environment.installed(), dict[str, Moved]()
    for extra in beside():
        environment.install(f"hookseal[{extra}] @ {wheel.as_uri()}")
        found[extra] = moved(product, environment.installed())
    environment.check()
    of_worker = Installer(python, folder / WORKER)
    of_worker.install(f"hookseal[{WORKER}] @ {wheel.as_uri()}")
    of_worker.check()
    return {**found, WORKER: {}}


def counts(wheel: Path, folder: Path) -> dict[str, dict[str, int]]:
    """Do both with each supported Python, the latter with those that are here; return the counts for each extra.

    With them are the first numbers of the versions of the product. Raises `RuntimeError` without an index.
    """
    found = {name: Counter[str]() for name in (*beside(), TOGETHER, WORKER)}
    for version in SUPPORTED:
        for name, of in resolutions(version, wheel).items():
            found[name].update(resolutions=1, moved=len(of.keys() - ({"redis"} if name == WORKER else set())))
        if (python := oldest(version)) is not None:
            for name, of in installations(python.path, wheel, folder / f"extras-{version}").items():
                found[name].update(installations=1, moved=len(of))
    newest = {name: Version(pin.removeprefix("==")).major for name, pin in resolved(PRODUCT, THIS).items()}
    return {**found, "product": {name: newest[name] for name in PRODUCT}}
