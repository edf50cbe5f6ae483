"""The locks install exactly as written, whatever has been released since, with the pip of each Python."""

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


@pytest.mark.parametrize("name", SUPPORTED)
def test_each_python_gets_the_locked_versions(name: str, index: Index, tmp_path: Path) -> None:
    """Every supported Python of this machine installs exactly the development lock, with newer versions offered.

    The other locks are parts of it, and each is complete.
    """
    python = oldest(name)
    if python is None:
        assert name != THIS
        pytest.skip(f"there is no Python {name} with a pip of its own, neither on PATH nor in pyenv")
    environment = python.environment(tmp_path / "environment")
    run = _install(INSTALL, index.locks / "dev.txt", index, environment)

    assert "as locked" == _outcome(run, python, "dev.txt", environment)
    assert {} == {lock: unmet for lock in LOCKS if (unmet := _unmet(python, lock, environment))}


def test_without_the_option_a_newer_version_gets_in_the_way(index: Index, tmp_path: Path) -> None:
    """Without `--no-deps` pip 23.2 ignores the pin of coverage, as with the public index.

    It selects the newest version, because pytest-cov requires an extra of it, and stops because that has no hash.
    """
    found = [python for name in SUPPORTED if (python := oldest(name)) and Version(python.pip_version) < FIXED_IN]
    if not found:
        pytest.skip(f"every Python here brings pip {FIXED_IN} or newer, which obeys the pin")
    python = found[0]
    command = INSTALL.read_text(encoding="utf-8")
    without = tmp_path / "install.sh"
    without.write_text(command.replace(" --quiet --no-deps ", " --quiet "), encoding="utf-8")

    lines = (index.locks / "dev.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    few = tmp_path / "dev.txt"  # without others that require an extra, and would be the first to fail
    others = ("arq==", "google-", "grpc-google-")
    few.write_text("".join(line for line in lines if not line.startswith(others)), encoding="utf-8")

    run = _install(without, few, index, python.environment(tmp_path / "environment"))

    assert command != without.read_text(encoding="utf-8")
    assert 1 == run.returncode
    assert "In --require-hashes mode, all requirements must have their versions pinned with ==" in run.stderr
    assert "coverage[toml]>=" in run.stderr
    assert "coverage-99999.0-py3-none-any.whl (from pytest-cov==" in run.stderr


def test_every_install_command_uses_the_lock_unchanged() -> None:
    """Scripts, image and pages install with the options that these tests use."""
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


def test_every_lock_is_a_part_of_the_development_lock() -> None:
    """No version changes when a command needs more of .venv than the one before it."""
    of_development = {str(requirement) for requirement in locked("dev.txt")}

    assert {} == {
        lock: others
        for lock in LOCKS
        if (others := {str(requirement) for requirement in locked(lock)} - of_development)
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
    found = distributions(path=[str(packages(environment))])
    versions = {canonicalize_name(package.name): package.version for package in found}
    if versions != _held(python, lock):
        return f"other versions: {versions}"
    unmet = _unmet(python, lock, environment)
    return f"incomplete: {unmet}" if unmet else "as locked"


def _held(python: Python, lock: str) -> dict[str, str]:
    """Return the version of every package in an environment of this lock on that Python."""
    named = {requirement.name: version(requirement) for requirement in locked(lock) if python.needs(requirement)}
    return {"pip": python.pip_version} | named


def _unmet(python: Python, lock: str, environment: Path) -> list[str]:
    """Return the requirements of the installed packages that the lock does not name."""
    held = _held(python, lock)
    needed = [
        Requirement(line)
        for package in distributions(path=[str(packages(environment))])
        if canonicalize_name(package.name) in held
        for line in package.requires or []
    ]
    return [
        str(need)
        for need in needed
        if python.needs(need)
        and ((name := canonicalize_name(need.name)) not in held or held[name] not in need.specifier)
    ]
