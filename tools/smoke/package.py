"""Builds the package, and makes environments that contain it."""

import os
import ssl
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
INSTALLED: Final = Path(__file__).with_name("installed.py")
UV: Final = Path(sys.executable).with_name("uv")


def build(folder: Path, tree: Path = ROOT) -> tuple[Path, Path]:
    """Build the source distribution and the wheel of the tree into the folder, and return both."""
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), at=tree)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def check_metadata(*files: Path) -> None:
    """Raise an error unless the index would accept these files and render the description."""
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files), at=ROOT)


def from_source(source: Path, folder: Path) -> Path:
    """Build the wheel from the source distribution, outside of the repository."""
    command = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    run(sys.executable, *command, "--wheel-dir", str(folder), str(source), at=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> list[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def install(wheel: Path, python: Path) -> None:
    """Install the wheel, and nothing else, into the environment of this Python, also over another one."""
    options = ("--quiet", "--no-deps", "--no-index", "--force-reinstall")
    run(sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel), at=python.parent)


def try_out(python: Path, database_url: str) -> str:
    """Run `installed.py` in the environment of this Python, outside of the repository; return what it printed."""
    return run(str(python), "-I", str(INSTALLED), database_url, at=python.parent)


def uv(*arguments: str | Path, text: str = "") -> str:
    """Run uv with this input, and return its output. Raises `RuntimeError` with its errors if it fails."""
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    if ssl.get_default_verify_paths().cafile is not None:  # else uv has certificates of its own
        environment.setdefault("UV_SYSTEM_CERTS", "true")  # as pip does
    ended = subprocess.run(
        [UV, *arguments, "--quiet"],
        input=text, capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    if ended.returncode:
        raise RuntimeError(f"uv {arguments[0]} {arguments[1]} ended with {ended.returncode}:\n{ended.stderr}")
    return ended.stdout


def run_tests_with(tests: str, folder: Path, *wanted: str | Path) -> str:
    """Run these tests with other versions of packages, which the folder gets; return what pytest printed at its end.

    `wanted` are the arguments by which uv installs them. Raises `RuntimeError` if a test fails, or if no index has
    such versions.
    """
    uv("pip", "install", "--target", folder, *wanted)
    command = (sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", tests)
    return run("env", f"PYTHONPATH={folder}", *command, at=ROOT).splitlines()[-1]


def run(*command: str, at: Path) -> str:
    """Run a command in this folder, and return its output. Raises `RuntimeError` with its output if it fails."""
    ended = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command[:5])} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout
