"""A local index: for each locked package an empty wheel with the real metadata, and newer versions of it."""

import hashlib
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.version import Version

ROOT: Final = Path(__file__).parents[2]
LOCKS: Final = tuple(sorted(file.name for file in (ROOT / "requirements").glob("*.txt")))
# What `pip install --editable .` runs, so these wheels are not empty.
BACKEND: Final = frozenset(
    {"editables", "hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers"}
)
REQUIRED: Final = "Requires-Python"
KEPT: Final = ("Requires-Dist", REQUIRED, "Provides-Extra")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A folder for each package with its wheels and the page that lists them, and the locks with their hashes."""

    packages: Path
    locks: Path

    def pip_variables(self) -> dict[str, str]:
        """Return the variables that make pip use this index only, without settings and caches of this machine."""
        return {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_INDEX_URL": self.packages.as_uri(),
            "PIP_NO_CACHE_DIR": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }

    def uv_variables(self) -> dict[str, str]:
        """Return the variables that make uv do the same."""
        return {"UV_DEFAULT_INDEX": self.packages.as_uri(), "UV_NO_CACHE": "1", "UV_NO_CONFIG": "1"}


def locked(lock: str) -> list[Requirement]:
    """Return the requirements of a file of requirements/, with markers and without hashes."""
    lines = (ROOT / "requirements" / lock).read_text(encoding="utf-8").splitlines()
    return [Requirement(line.removesuffix("\\")) for line in lines if re.match(r"[a-z0-9]", line)]


def pins(to: Path, *locks: str) -> Path:
    """Write the pins of these locks, with their hashes, to one file; of a package those of the first that has it."""
    held = dict[str, str]()
    for lock in locks:
        found = dict[str, str]()
        text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
        for pin in re.findall(r"^[a-z0-9].*\n(?:^ .*\n)*", text, re.MULTILINE):
            name = pin.partition("==")[0]
            found[name] = found.get(name, "") + pin
        held = found | held
    to.write_text("".join(held.values()), encoding="utf-8")
    return to


def version(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    assert "==" == pin.operator
    return pin.version


def build(folder: Path, only: Collection[str] = ()) -> Index:
    """Write every locked package (or `only` these) with two newer versions of each, and the locks of the former."""
    index = Index(packages=folder / "packages", locks=folder / "requirements")
    index.packages.mkdir()
    index.locks.mkdir()
    hashes: dict[str, str] = {}
    for lock in LOCKS:
        held = [requirement for requirement in locked(lock) if not only or requirement.name in only]
        for requirement in held:
            pin = f"{requirement.name}=={version(requirement)}"
            if pin not in hashes:
                hashes[pin] = _write(index.packages, requirement.name, version(requirement))
                for newer in (_next_release(version(requirement)), "99999.0"):
                    _write(index.packages, requirement.name, newer)
        _rewrite(held, index.locks / lock, hashes)
    for package in index.packages.iterdir():
        links = "".join(f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in sorted(package.iterdir()))
        (package / "index.html").write_text(f"<!doctype html>{links}", encoding="utf-8")
    return index


def _next_release(of: str) -> str:
    """Return a later version that most requirements of the present one accept."""
    return f"{re.sub(r'[^0-9.].*$', '', of).rstrip('.')}.1"


def _rewrite(held: list[Requirement], to: Path, hashes: Mapping[str, str]) -> None:
    lines = [
        f"{requirement} --hash=sha256:{hashes[f'{requirement.name}=={version(requirement)}']}\n" for requirement in held
    ]
    to.write_text("".join(lines), encoding="utf-8")


def _write(packages: Path, name: str, version: str) -> str:
    """Write a wheel for any Python and machine, with the installed metadata, and return its hash.

    An older version than the installed one may be for an older Python, so its wheel requires none.
    """
    installed = _installed(name)
    escaped = name.replace("-", "_")
    info = f"{escaped}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    files: dict[str, str] = {}
    if installed is not None:
        kept = [field for field in KEPT if field != REQUIRED or Version(version) >= Version(installed.version)]
        metadata += [f"{field}: {value}" for field in kept for value in installed.metadata.get_all(field, [])]
        files |= dict(_sources(installed)) if name in BACKEND else {}
    files |= {
        f"{info}/METADATA": "\n".join([*metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files |= {f"{info}/RECORD": "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])}
    path = packages / name / f"{escaped}-{version}-py3-none-any.whl"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _installed(name: str) -> Distribution | None:
    """Return a package of the environment of these tests, None if it is for another Python or system."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _sources(installed: Distribution) -> Iterator[tuple[str, str]]:
    for file in installed.files or []:
        if ".." not in file.parts and file.parts[0].partition(".dist-info")[1] == "" and file.suffix != ".pyc":
            yield str(file), file.read_text(encoding="utf-8")
