"""Each extra beside the packages of a product, on each Python: which of these packages does it move?"""

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from packaging.version import Version

from tests.install.index import ROOT, locked, pins
from tests.install.pythons import SUPPORTED, THIS, oldest
from tests.install.versions import Installer, built_here, resolved

PRODUCT: Final = ("boto3", "django", "fastapi", "pydantic", "redis", "sqlalchemy", "uvicorn")
WORKER: Final = "worker"  # whose place is an environment of its own: arq requires redis < 6
TOGETHER: Final = "together"  # all other extras at once
LOCK: Final = "install/product.txt"

# Each package that has another version afterwards, or is gone: both versions.
Moved = Mapping[str, tuple[str, str | None]]
Limits = Mapping[str, Path]


class Trial(NamedTuple):
    """What an extra has moved, in a resolution or in an installation."""

    kind: str
    extra: str
    moved: Moved


def limits(folder: Path) -> Limits:
    """Return the files that pin all versions, those of `worker` and those of everything else."""
    return {
        TOGETHER: pins(folder / "together.txt", LOCK),
        WORKER: pins(folder / "worker.txt", "install/redis-5.txt", LOCK, "dev.txt"),
    }


def beside() -> list[str]:
    """Return the extras that belong into the environment of a product."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(set(project["optional-dependencies"]) - {WORKER})


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> Moved:
    """Return what has moved between these versions."""
    return {name: (pin, after.get(name)) for name, pin in before.items() if after.get(name) != pin}


def resolutions(python: str, wheel: Path, limits: Limits) -> dict[str, Moved]:
    """Return what the other extras together move, and what `worker` moves, on this Python: nothing is installed.

    Without limits the newest packages are taken.
    """
    product = resolved(PRODUCT, python, limits=limits.get(TOGETHER))
    asked = {TOGETHER: ",".join(beside()), WORKER: WORKER}
    return {
        name: moved(product, resolved([*PRODUCT, built_here(wheel, extras)], python, limits=limits.get(name)))
        for name, extras in asked.items()
    }


def installations(python: Path, wheel: Path, folder: Path, limits: Limits) -> dict[str, Moved]:
    """Install each extra into the environment of a product, one after the other, and return what each moved.

    `worker` is installed into an environment of its own. Without limits the newest packages are taken. Raises
    `RuntimeError` if packages do not fit each other.
    """
    environment = Installer(python, folder / "product", limits=limits.get(TOGETHER))
    environment.install(*([str(pin) for pin in locked(LOCK) if pin.name in PRODUCT] if limits else PRODUCT))
    product, found = environment.installed(), dict[str, Moved]()
    for extra in beside():
        environment.install(built_here(wheel, extra))
        found[extra] = moved(product, environment.installed())
    environment.check()
    of_worker = Installer(python, folder / WORKER, limits=limits.get(WORKER))
    of_worker.install(built_here(wheel, WORKER))
    of_worker.check()
    return {**found, WORKER: {}}


def newest(version: str, wheel: Path, folder: Path) -> Iterator[Trial]:
    """Do both with the newest packages and this Python, the latter if it is here.

    Raises `RuntimeError` if packages do not fit each other, or if there is no index.
    """
    for name, of in resolutions(version, wheel, {}).items():
        wanted = {"redis"} if name == WORKER else set[str]()
        yield Trial("resolutions", name, {each: of[each] for each in of.keys() - wanted})
    if (python := oldest(version)) is not None:
        for name, of in installations(python.path, wheel, folder / f"extras-{version}", {}).items():
            yield Trial("installations", name, of)


def counts(wheel: Path, folder: Path) -> dict[str, dict[str, int]]:
    """Try each Python; return the counts for each extra, and the first numbers of the versions of the product."""
    found = {name: Counter[str]() for name in (*beside(), TOGETHER, WORKER)}
    for trial in (trial for version in SUPPORTED for trial in newest(version, wheel, folder)):
        found[trial.extra].update({trial.kind: 1, "moved": len(trial.moved)})
    majors = {name: Version(pin.removeprefix("==")).major for name, pin in resolved(PRODUCT, THIS, limits=None).items()}
    return {**found, "product": {name: majors[name] for name in PRODUCT}}
