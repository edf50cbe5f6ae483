"""The locks install exactly as written, whatever has been released since, with the pip of each Python.

pip only reports here what it would install, for it then ends in half the time: it has read and checked all files.
`test_venv.py` has it install.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.install.index import LOCKS, ROOT, Index, build, locked, version
from tests.install.pythons import SUPPORTED, THIS, Python, clean, oldest
from tests.install.versions import Installer, built_here
from tools.governance.report import names

INSTALL = ROOT / "tools" / "install.sh"
FROM_A_LOCK = re.compile(r"\binstall\b(?P<options>[^\n&|;]*?)\s(?:--requirement|-r)\b")
FIXED_IN = Version("23.3")
INSTALLED_FROM = (".md", ".sh", ".yaml", "/run", "Dockerfile", "Makefile")
INSTALLS = re.compile(r"""["'](?:install|compile|download|ci)["']""")
INSTALLERS = re.compile(r"\b(?:pip|npm|apt-get)\b")
FROM_PYTHON = {
    "tests/install/versions.py": "what a file pins; without one only for `make next` and the record of UX-01",
    "tests/interop/node_modules.py": "`npm ci`: what package-lock.json pins",
    "tools/browser.py": "Chromium, only by hand: not where CI is set",
    "tools/image/engine.py": "podman, only for `make image`",
    "tools/smoke/package.py": "wheels built here, without an index; and for tests what their caller pins",
}

pytestmark = [pytest.mark.req("OPS-08"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Return an index with all locked packages and newer versions of each."""
    return build(tmp_path_factory.mktemp("index"))


@pytest.mark.parametrize("name", SUPPORTED)
def test_each_python_gets_the_locked_versions(name: str, index: Index, tmp_path: Path) -> None:
    """Every supported Python of this machine installs exactly the development lock, with newer versions offered.

    The other locks are parts of it, and each is complete.
    """
    python = oldest(name)
    if python is None:
        assert name != THIS
        pytest.skip(f"there is no Python {name} with a pip of its own, neither on PATH nor in pyenv")
    report = tmp_path / "report.json"
    run = _install(INSTALL, index, python.environment(tmp_path / "environment"), PIP_REPORT=str(report))

    assert (0, "") == (run.returncode, run.stdout), run.stderr
    found = [each["metadata"] for each in json.loads(report.read_text(encoding="utf-8"))["install"]]
    new = {canonicalize_name(each["name"]): each["version"] for each in found}
    own = {"pip": python.pip_version}  # stays if the lock names this version of it
    assert own | _held(python, "dev.txt") == own | new
    assert {} == {lock: unmet for lock in LOCKS if (unmet := _unmet(python, lock, found))}


def test_without_the_option_a_newer_version_gets_in_the_way(tmp_path: Path) -> None:
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

    few = build(tmp_path, only=["coverage", "pytest-cov"])  # without others that pip would look at first
    run = _install(without, few, python.environment(tmp_path / "environment"))

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


def test_nothing_else_installs() -> None:
    """These modules may install, and each has what keeps a newer release out. npm has the digest of each package."""
    found = {
        name
        for name in names(ROOT)
        if name.endswith(".py") and name.startswith(("tests/", "tools/")) and not name.endswith("/test_locks.py")
        if INSTALLS.search(text := (ROOT / name).read_text(encoding="utf-8")) and INSTALLERS.search(text)
    }
    trees = [json.loads((ROOT / name).read_text("utf-8")) for name in names(ROOT) if name.endswith("package-lock.json")]

    assert FROM_PYTHON.keys() == found
    assert 2 == len(trees)
    assert [] == [
        name for tree in trees for name, of in tree["packages"].items() if name != "" and "integrity" not in of
    ]


def test_tests_install_the_locked_versions(
    index: Index, built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tests install by uv is what a lock pins, with newer versions of each offered: most come without a lock."""
    for name, value in index.uv_variables().items():
        monkeypatch.setenv(name, value)
    of_development = {pin.name: f"=={version(pin)}" for pin in locked("dev.txt")}
    wheel = built_here(built[1], "worker,aws,embedded,gcp,otel")
    found = list[dict[str, str]]()
    for limits in (index.locks / "dev.txt", None):
        environment = Installer(Path(sys.executable), tmp_path / str(limits is None), limits=limits)
        environment.install(wheel)
        found.append({name: pin for name, pin in environment.installed().items() if name != "hookseal"})
    pinned, newest = found

    assert pinned == {name: of_development[name] for name in pinned}
    assert len(pinned) < 2 * sum(newest[name] != pin for name, pin in pinned.items())


def test_every_lock_is_a_part_of_the_development_lock() -> None:
    """No version changes when a command needs more of .venv than the one before it."""
    of_development = {str(requirement) for requirement in locked("dev.txt")}

    assert {} == {
        lock: others
        for lock in LOCKS
        if (others := {str(requirement) for requirement in locked(lock)} - of_development)
    }


def _install(script: Path, index: Index, environment: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", script, environment / "bin" / "python", index.locks / "dev.txt"],
        env=clean({**index.pip_variables(), "PIP_DRY_RUN": "1", **variables}),
        capture_output=True,
        text=True,
        check=False,
    )


def _held(python: Python, lock: str) -> dict[str, str]:
    """Return the version of every package that this lock installs on that Python."""
    return {requirement.name: version(requirement) for requirement in locked(lock) if python.needs(requirement)}


def _unmet(python: Python, lock: str, found: list[dict[str, Any]]) -> list[str]:
    """Return what the packages of the lock require and the lock does not name; pip comes with the environment."""
    held = {"pip": python.pip_version} | _held(python, lock)
    needed = [
        Requirement(line)
        for package in found
        if canonicalize_name(package["name"]) in held
        for line in package.get("requires_dist", [])
    ]
    return [
        str(need)
        for need in needed
        if python.needs(need)
        and ((name := canonicalize_name(need.name)) not in held or held[name] not in need.specifier)
    ]
