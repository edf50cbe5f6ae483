"""The shape of the house, where no other tool watches it."""

import ast
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40

# Loads everything once, forgets hookseal, and gives each module a process of its own in which it is the first.
IMPORT_ALONE = """
import importlib, os, pkgutil, sys, traceback
import hookseal
names = [m.name for m in pkgutil.walk_packages(hookseal.__path__, "hookseal.") if m.name != "hookseal.schema.env"]
for name in names:
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "hookseal"]:
    del sys.modules[name]
for name in names:
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        print(name)
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(files: list[Path]) -> Iterator[tuple[str, Function]]:
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_secrets_is_the_standard_library() -> None:
    """No folder of ours takes the place of the standard library's `secrets`, which asyncpg needs at login."""
    assert Path(ast.__file__).parent == Path(secrets.__file__).parent
    assert 3 == len(secrets.token_bytes(3))


def test_every_module_imports_alone() -> None:
    """Each module of hookseal can be the first to be imported: there is no circle that another order hides."""
    run = subprocess.run([sys.executable, "-c", IMPORT_ALONE], capture_output=True, text=True, check=False)

    assert "" == run.stdout + run.stderr
    assert 0 == run.returncode


def test_every_test_folder_is_a_package() -> None:
    """Without a full chain of `__init__.py` a folder `tests/secrets` would be imported as `secrets`."""
    folders = {file.parent for file in TESTS}

    assert [] == sorted(str(folder) for folder in folders if not (folder / "__init__.py").is_file())


def test_every_test_says_what_it_proves() -> None:
    """Every test has a docstring that states its truth."""
    tests = ((place, node) for place, node in _functions(TESTS) if node.name.startswith("test_"))

    assert [] == [place for place, node in tests if not ast.get_docstring(node)]


def test_modules_and_functions_stay_small() -> None:
    """No module and no function outgrows what one can hold in mind."""
    modules = (file for file in SOURCES if len(file.read_text(encoding="utf-8").splitlines()) > MAX_MODULE_LINES)
    lengths = ((place, (node.end_lineno or 0) - node.lineno + 1) for place, node in _functions(SOURCES))

    assert [] == [str(file.relative_to(ROOT)) for file in modules]
    assert [] == [place for place, length in lengths if length > MAX_FUNCTION_LINES]


@pytest.mark.parametrize("file", sorted(file.name for file in (ROOT / "requirements").glob("*.txt")))
def test_requirements_are_pinned_by_hash_and_name_no_host(file: str) -> None:
    """Every package stands with its exact version and hashes, and none says where to fetch it from."""
    text = (ROOT / "requirements" / file).read_text(encoding="utf-8")
    entries = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.lstrip().startswith("#")]

    assert [] == [line for line in entries if not re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:", line)]
    assert "://" not in text


def test_there_is_one_kind_of_lock() -> None:
    """The pinned requirements are the only lock: no second one can contradict them."""
    assert [] == [name for name in ("uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock") if (ROOT / name).exists()]
