"""Beside the newest packages of a product the package moves none of them, on each Python.

uv resolves for a Python that need not be here, and installs nothing.
"""

import tomllib
from pathlib import Path

import pytest

from tests.install.index import ROOT
from tests.install.pythons import SUPPORTED
from tests.install.versions import need_index, resolved

PRODUCT = ("boto3", "django", "fastapi", "pydantic", "redis", "sqlalchemy", "uvicorn")
WORKER = "worker"  # whose place is an environment of its own: arq requires redis < 6

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("python", SUPPORTED)
def test_nothing_of_a_product_moves(python: str, built: tuple[Path, Path]) -> None:
    need_index()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    beside = sorted(set(project["optional-dependencies"]) - {WORKER})
    product = resolved(PRODUCT, python)

    assert {} == moved(product, built[1], ",".join(beside), python)
    assert {"redis"} == moved(product, built[1], WORKER, python).keys()


def moved(product: dict[str, str], wheel: Path, extras: str, python: str) -> dict[str, tuple[str, str]]:
    """Return each package of the product that has another version beside hookseal with these extras: both versions."""
    beside = resolved([*PRODUCT, f"hookseal[{extras}] @ {wheel.as_uri()}"], python)
    return {name: (pin, beside[name]) for name, pin in product.items() if beside[name] != pin}
