"""Beside the newest packages of a product the package moves none of them, on each Python."""

import tomllib
from pathlib import Path

import pytest

from tests.install.index import ROOT
from tests.install.pythons import SUPPORTED, oldest
from tests.install.versions import Installer, need_index, resolved

PRODUCT = ("boto3", "django", "fastapi", "pydantic", "redis", "sqlalchemy", "uvicorn")
WORKER = "worker"  # whose place is an environment of its own: arq requires redis < 6

pytestmark = pytest.mark.timeout(600)


def beside() -> list[str]:
    """Return the extras that belong into the environment of a product."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(set(project["optional-dependencies"]) - {WORKER})


def moved(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str | None]]:
    """Return each package that has another version afterwards, or is gone: both versions."""
    return {name: (pin, after.get(name)) for name, pin in before.items() if after.get(name) != pin}


@pytest.mark.parametrize("python", SUPPORTED)
def test_nothing_of_a_product_moves(python: str, built: tuple[Path, Path]) -> None:
    """All extras together require nothing else, also on a Python that is not here: nothing is installed."""
    need_index()
    wheel = built[1].as_uri()
    product = resolved(PRODUCT, python)

    with_all = resolved([*PRODUCT, f"hookseal[{','.join(beside())}] @ {wheel}"], python)
    with_worker = resolved([*PRODUCT, f"hookseal[{WORKER}] @ {wheel}"], python)

    assert {} == moved(product, with_all)
    assert {"redis"} == moved(product, with_worker).keys()


@pytest.mark.parametrize("name", SUPPORTED)
def test_each_extra_leaves_an_environment_as_it_was(name: str, built: tuple[Path, Path], tmp_path: Path) -> None:
    """Installed into the environment of a product, one after the other, none changes a package that was there.

    An installer replaces a package without a word, so what was there is compared after each.
    """
    need_index()
    python = oldest(name)
    if python is None:
        pytest.skip(f"there is no Python {name}, neither on PATH nor in pyenv")
    environment = Installer(python.path, tmp_path / "environment")
    environment.install(*PRODUCT)
    product = environment.installed()

    for extra in beside():
        environment.install(f"hookseal[{extra}] @ {built[1].as_uri()}")
        assert {} == moved(product, environment.installed()), extra
    environment.check()
