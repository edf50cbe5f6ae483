"""The structure of the repository, where no other tool checks it."""

import ast
import re
import secrets
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MODULES = {
    ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"): file for file in SOURCES
}
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def _cycle(graph: dict[str, set[str]]) -> CycleError | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error
    return None


def _imported(name: str) -> Iterator[str]:
    """Yield the modules of hookseal that run when this one is loaded, and that it does not belong to."""
    for imported in _named(ast.parse(MODULES[name].read_text(encoding="utf-8")).body):
        if imported in MODULES:
            yield imported
            yield from _run_by(imported, for_module=name)


def _run_by(imported: str, *, for_module: str) -> list[str]:
    """Return the packages that run before that module, except for those that contain the importer."""
    packages = accumulate(imported.split(".")[:-1], "{}.{}".format)
    return [package for package in packages if not f"{for_module}.".startswith(f"{package}.")]


def _named(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield what this code imports when it runs; the imports of functions happen later."""
    for node in nodes:
        match node:
            case ast.Import():
                yield from (each.name for each in node.names)
            case ast.ImportFrom():
                names = [f"{node.module}.{each.name}" for each in node.names]
                yield from (name if name in MODULES else str(node.module) for name in names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.expr():
                continue
            case _:
                yield from _named(ast.iter_child_nodes(node))


def test_no_folder_shadows_the_module_secrets() -> None:
    """No folder shadows the standard library's `secrets`, which asyncpg needs at login."""
    assert Path(ast.__file__).parent == Path(secrets.__file__).parent
    assert 3 == len(secrets.token_bytes(3))


def test_no_import_cycle_exists() -> None:
    """Each module of hookseal can be imported first: no module imports itself through others."""
    graph = {name: set(_imported(name)) for name in MODULES}
    circle: list[str] = next((error.args[1] for error in [_cycle(graph)] if error is not None), [])

    assert [] == circle
    assert {"hookseal.secrets.key.active_key", "hookseal.secrets.core.keyring"} <= graph["hookseal.secrets.key.keys"]


def test_an_import_cycle_is_found() -> None:
    """Two modules that import each other form a cycle, also through the package of one of them."""
    assert _cycle({"a": {"b"}, "b": {"a"}}) is not None
    assert _cycle({"a": {"b"}, "b": set()}) is None
    assert ["hookseal.client"] == _run_by("hookseal.client.publisher", for_module="hookseal.worker.run")
    assert [] == _run_by("hookseal.client.publisher", for_module="hookseal.client.doorbell")


def test_every_test_folder_is_a_package() -> None:
    """Every test folder has `__init__.py`; without it `tests/secrets` would be imported as `secrets`."""
    folders = {file.parent for file in TESTS}

    assert [] == sorted(str(folder) for folder in folders if not (folder / "__init__.py").is_file())


@pytest.mark.parametrize("file", sorted(file.name for file in (ROOT / "requirements").glob("*.txt")))
def test_requirements_are_pinned_by_hash_and_name_no_host(file: str) -> None:
    """Every package has its exact version and hashes, and none has an address."""
    text = (ROOT / "requirements" / file).read_text(encoding="utf-8")
    entries = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.lstrip().startswith("#")]

    assert [] == [line for line in entries if not re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:", line)]
    assert "://" not in text


def test_there_is_one_kind_of_lock() -> None:
    """The pinned requirements are the only lock, so that no second one can contradict them."""
    assert [] == [name for name in ("uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock") if (ROOT / name).exists()]
