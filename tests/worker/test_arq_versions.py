"""A deployed worker runs only with the arq that it is made for, and a redis that this arq accepts."""

import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from hookseal.cli import worker
from hookseal.errors import ConfigError
from hookseal.worker import arq_versions
from hookseal.worker.arq_versions import ARQ, REDIS_BELOW, problem_with, require_arq

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.req("UX-01", part="redis")


def test_they_are_those_that_the_package_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [Requirement(each) for each in requires("arq") or []]
    (redis,) = (each for each in needs if each.name == "redis")

    assert f"arq=={ARQ}" in project["optional-dependencies"]["worker"]
    assert f"{REDIS_BELOW - 1}.9" in redis.specifier
    assert f"{REDIS_BELOW}.0" not in redis.specifier
    require_arq()


@pytest.mark.parametrize(
    ("arq", "redis", "problem"),
    [
        (ARQ, "5.3.1", None),
        (ARQ, None, None),
        (ARQ, "6.0.0", r"redis 6\.0\.0 is installed, and .* arq 0\.28\.0, which requires redis < 6"),
        (ARQ, "10.0b1", r"redis 10\.0b1 is installed"),
        (
            "0.25.0",
            "8.1.0",
            r"arq 0\.25\.0 is installed, which pip chooses beside a newer redis, .* needs arq 0\.28\.0",
        ),
        (None, "8.1.0", "`hookseal worker` needs arq, which is not installed"),
    ],
)
def test_others_are_refused(
    arq: str | None, redis: str | None, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"arq": arq, "redis": redis}

    def version(name: str) -> str:
        if (found := installed[name]) is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(arq_versions, "version", version)
    if problem is None:
        assert problem_with(arq, redis) is None
        require_arq()
        return
    with pytest.raises(ConfigError, match=rf"^{problem}.*: install the worker in an environment of its own"):
        worker.worker()
