"""The locks install as they stand, whatever was released since, with the pip that each Python brings."""

import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.install.index import LOCKS, ROOT, Index, locked, version
from tests.install.pythons import SUPPORTED, THIS, Python, clean, oldest, packages
from tools.governance.tree import names

INSTALL = ROOT / "tools" / "install.sh"
FROM_A_LOCK = re.compile(r"\binstall\b(?P<options>[^\n&|;]*?)\s(?:--requirement|-r)\b")
FIXED_IN = Version("23.3")
INSTALLED_FROM = (".md", ".sh", ".yaml", "/run", "Dockerfile", "Makefile")

pytestmark = [pytest.mark.req("OPS-08"), pytest.mark.timeout(300)]


def test_this_python_gets_what_is_locked(index: Index, tmp_path: Path) -> None:
    """In an empty environment, with newer versions of everything on offer, each lock installs exactly what it names."""
    python = oldest(THIS)

    assert python is not None
    assert dict.fromkeys(LOCKS, "as locked") == _installed(python, index, tmp_path)


@pytest.mark.parametrize("other", [name for name in SUPPORTED if name != THIS])
def test_another_python_gets_what_is_locked(other: str, index: Index, tmp_path: Path) -> None:
    """The same with every other supported Python that is on this machine."""
    python = oldest(other)
    if python is None:
        pytest.skip(f"there is no Python {other} with a pip of its own, neither on PATH nor in pyenv")

    assert dict.fromkeys(LOCKS, "as locked") == _installed(python, index, tmp_path)


def test_without_the_option_a_newer_version_gets_in_the_way(index: Index, tmp_path: Path) -> None:
    """The index does what the public one did: without --no-deps pip 23.2 takes the newest coverage in spite of the pin,
    for pytest-cov asks for an extra of it, and stops for want of a hash.
    """
    found = [python for name in SUPPORTED if (python := oldest(name)) and Version(python.pip_version) < FIXED_IN]
    if not found:
        pytest.skip(f"every Python here brings pip {FIXED_IN} or newer, which obeys the pin")
    python = found[0]
    command = INSTALL.read_text(encoding="utf-8")
    without = tmp_path / "install.sh"
    without.write_text(command.replace(" --quiet --no-deps ", " --quiet "), encoding="utf-8")

    lines = (index.locks / "dev.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    without_arq = tmp_path / "dev.txt"  # which asks for redis[hiredis] and would be the first to stop it
    without_arq.write_text("".join(line for line in lines if not line.startswith("arq==")), encoding="utf-8")

    run = _install(without, without_arq, index, python.environment(tmp_path / "environment"))

    assert command != without.read_text(encoding="utf-8")
    assert 1 == run.returncode
    assert "In --require-hashes mode, all requirements must have their versions pinned with ==" in run.stderr
    assert "coverage[toml]>=" in run.stderr
    assert "coverage-99999.0-py3-none-any.whl (from pytest-cov==" in run.stderr


def test_every_command_that_installs_from_a_lock_takes_it_as_it_stands() -> None:
    """The scripts, the image and the pages install with the options that these tests have run."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in names(ROOT) if name.endswith(INSTALLED_FROM)}
    commands = [
        (name, set(match["options"].split()))
        for name, text in sorted(texts.items())
        for match in FROM_A_LOCK.finditer(text.replace("\\\n", " "))
    ]

    assert ["deploy/Dockerfile", "deploy/Dockerfile", "deploy/README.md", "tools/install.sh"] == [
        name for name, _ in commands
    ]
    assert [] == [name for name, options in commands if not {"--no-deps", "--require-hashes"} <= options]


def test_every_lock_is_a_part_of_that_of_development() -> None:
    """Nothing changes its version when a command needs more of .venv than the one before it."""
    of_development = {str(requirement) for requirement in locked("dev.txt")}

    assert {} == {
        lock: others
        for lock in LOCKS
        if (others := {str(requirement) for requirement in locked(lock)} - of_development)
    }


def _installed(python: Python, index: Index, folder: Path) -> dict[str, str]:
    """Install each lock into an environment of its own, and return what came of it."""
    empty = python.environment(folder / "empty")
    return {
        lock: _outcome(_install(INSTALL, index.locks / lock, index, environment), python, lock, environment)
        for lock in LOCKS
        for environment in [python.copy(empty, folder / lock)]
    }


def _install(script: Path, lock: Path, index: Index, environment: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", script, environment / "bin" / "python", lock],
        env=clean(index.pip_variables()),
        capture_output=True,
        text=True,
        check=False,
    )


def _outcome(run: subprocess.CompletedProcess[str], python: Python, lock: str, environment: Path) -> str:
    if (run.returncode, run.stdout, run.stderr) != (0, "", ""):
        return f"exit {run.returncode}: {run.stdout}{run.stderr}"
    held = [requirement for requirement in locked(lock) if python.needs(requirement)]
    found = list(distributions(path=[str(packages(environment))]))
    versions = {canonicalize_name(package.name): package.version for package in found}
    if versions != {"pip": python.pip_version} | {requirement.name: version(requirement) for requirement in held}:
        return f"other versions: {versions}"
    needed = [Requirement(line) for package in found for line in package.requires or []]
    unmet = [
        str(need)
        for need in needed
        if python.needs(need) and versions.get(canonicalize_name(need.name), "") not in need.specifier
    ]
    return f"incomplete: {unmet}" if unmet else "as locked"
