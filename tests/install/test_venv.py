"""`make` builds .venv with what a command needs, and never removes a package."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.install.index import ROOT, Index, build, locked, version
from tests.install.pythons import clean, packages

BUILDER = """\
import pathlib, zipfile
def build_editable(folder, *_):
    name = "ours-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for file, text in {
            "METADATA": "Metadata-Version: 2.1\\nName: ours\\nVersion: 1\\nRequires-Dist: NEEDED\\n",
            "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
            "RECORD": "",
        }.items():
            wheel.writestr("ours-1.dist-info/" + file, text)
    return name
"""
# As `ensurepip` takes 4 s of CPU, a new environment gets the pip of this one.
PYTHON = """\
#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
  {python} "$@" --without-pip
  exec cp -Rp {packages}/pip {packages}/pip-*.dist-info .venv/lib/python3.*/site-packages
fi
exec {python} "$@"
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "builder"\nbackend-path = ["."]\n'

pytestmark = [pytest.mark.req("OPS-08"), pytest.mark.timeout(300)]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Return an index with the packages of the three locks below, and newer versions of each."""
    (tmp_path / "index").mkdir()
    return build(tmp_path / "index", only=["idna", "pluggy", "pytz"])


@pytest.fixture
def checkout(index: Index, tmp_path: Path) -> Path:
    """Return a folder with the Makefile, scripts and one-package locks: to build, for the demo, for tests."""
    checkout = tmp_path / "checkout"
    (checkout / "requirements").mkdir(parents=True)
    shutil.copytree(
        ROOT / "tools", checkout / "tools", ignore=lambda _, names: [n for n in names if not n.endswith(".sh")]
    )
    shutil.copy(ROOT / "Makefile", checkout)
    (checkout / "builder.py").write_text(BUILDER.replace("NEEDED", "idna"), encoding="utf-8")
    (checkout / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    python = checkout / "python"
    python.write_text(PYTHON.format(python=sys.executable, packages=packages(Path(sys.prefix))), encoding="utf-8")
    python.chmod(0o755)
    pins = (index.locks / "dev.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    for lock, names in {"build": ["pluggy"], "embedded": ["idna"], "dev": ["pluggy", "idna", "pytz"]}.items():
        held = [line for line in pins if line.partition("==")[0] in names]
        (checkout / "requirements" / f"{lock}.txt").write_text("".join(held), encoding="utf-8")
    return checkout


def test_a_command_builds_missing_parts_and_keeps_others(checkout: Path, index: Index) -> None:
    """The demo gets no test packages; tests are added to the same .venv, and then the demo installs nothing.

    A .venv with all of them is updated as a whole; a conflict is reported, and the update is tried again.
    """
    built = _make(".venv/demo", checkout, index)
    made = (checkout / ".venv" / "pyvenv.cfg").stat().st_mtime_ns

    assert (0, "") == (built.returncode, built.stderr)
    assert built.stdout.startswith(f"building .venv with Python {sys.version.split()[0]}, ")
    assert {"ours": "1", **_locked("idna", "pluggy")} == _packages(checkout)

    completed = _make(".venv/ready", checkout, index)

    assert (0, "bringing .venv up to date\n", "") == (completed.returncode, completed.stdout, completed.stderr)
    assert {"ours": "1", **_locked("idna", "pluggy", "pytz")} == _packages(checkout)
    assert made == (checkout / ".venv" / "pyvenv.cfg").stat().st_mtime_ns
    assert "make: '.venv/demo' is up to date.\n" == _make(".venv/demo", checkout, index).stdout

    (checkout / "builder.py").write_text(BUILDER.replace("NEEDED", "idna<1"), encoding="utf-8")
    (checkout / "requirements" / "embedded.txt").touch()
    refused = _make(".venv/demo", checkout, index)

    assert 2 == refused.returncode
    assert re.match(
        r"ours 1 has requirement idna<1, but you have idna \S+\.\nhookseal: what is in \.venv does not fit",
        refused.stderr,
    )
    assert "`make clean`" in refused.stderr
    assert "requirements/dev.txt does not fit pyproject.toml: run `make lock`" in refused.stderr
    assert "is up to date" not in _make("--dry-run", checkout, index, ".venv/demo").stdout


def test_without_a_supported_python_the_error_names_those_tried(checkout: Path) -> None:
    expected = (
        "hookseal: needs Python 3.11, 3.12, 3.13 or 3.14, and found none that runs (tried: /no/python). "
        "Install one, or name it: make PYTHON=/path/to/python3.12 ...\n"
    )

    assert (1, "", expected) == _venv(checkout, "/no/python")


def test_a_python_without_ensurepip_is_named(checkout: Path) -> None:
    python = checkout / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"\n', encoding="utf-8"
    )
    python.chmod(0o755)
    package = "python{}.{}-venv".format(*sys.version_info)
    expected = (
        f"hookseal: {python} cannot make virtual environments: install {package} "
        f"(Debian and Ubuntu: apt-get install {package})\n"
    )

    assert (1, "", expected) == _venv(checkout, str(python))


def test_commands_get_only_the_variables_that_the_makefile_names(checkout: Path) -> None:
    """A variable of the caller that Python or hookseal would read reaches no command; what pip needs does."""
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "ready").touch()
    (checkout / "requirements" / "lock.sh").write_text("env", encoding="utf-8")
    named = {"HOME": "/home/a", "CI": "true", "PIP_INDEX_URL": "file:///a", "https_proxy": "http://p", "LC_CTYPE": "C"}
    named |= {"HOOKSEAL_TEST_REDIS_URL": "redis://a"}
    others = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": "/a", "PYTHON": "/a", "HOOKSEAL_ENV": "test", "PGHOST": "a"}
    others |= {"DATABASE_URL": "postgresql://a", "JOBS": "2", "TERM": "xterm"}

    run = subprocess.run(
        ["make", "lock"], cwd=checkout, env=clean(named | others), capture_output=True, text=True, check=True
    )

    variables = dict(line.split("=", 1) for line in run.stdout.splitlines())
    assert named.items() <= variables.items()
    assert set() == others.keys() & variables.keys()
    assert variables["PATH"].endswith(os.environ["PATH"])


def _make(target: str, checkout: Path, index: Index, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", f"PYTHON={checkout / 'python'}", target, *more],
        cwd=checkout,
        env=clean(index.pip_variables()),
        capture_output=True,
        text=True,
        check=False,
    )


def _venv(checkout: Path, python: str) -> tuple[int, str, str]:
    command = ["sh", str(checkout / "tools" / "venv.sh"), "demo", python]
    run = subprocess.run(command, env=clean({}), capture_output=True, text=True, check=False)
    return run.returncode, run.stdout, run.stderr


def _packages(checkout: Path) -> dict[str, str]:
    """Return the version of each package in .venv, without pip."""
    found = distributions(path=[str(packages(checkout / ".venv"))])
    return {package.name: package.version for package in found if package.name != "pip"}


def _locked(*names: str) -> dict[str, str]:
    return {pin.name: version(pin) for pin in locked("dev.txt") if pin.name in names}
