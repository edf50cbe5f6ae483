"""Whether the types of the public interface are complete, as pyright reads them: `make public-types`.

pyright's own `--verifytypes` judges every module of a package, because no module of hookseal has a name with an
underscore. This judges a smaller surface, which is stated here: the names of the modules in `PUBLIC`, and what can be
reached from them: the classes that are parameters, results, fields or attributes, and their public methods and fields.
Every symbol of that surface must have a type that is known. Exits with 1 and names those that have none.
"""

import ast
import inspect
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import FunctionType, ModuleType
from typing import Any, Final, get_args, get_origin, get_type_hints

from hookseal import admin
from hookseal.admin.admin import GROUPS

ROOT: Final = Path(__file__).parents[1]
PUBLIC: Final = (
    "hookseal",
    "hookseal.admin",
    "hookseal.api",
    "hookseal.errors",
    "hookseal.pages",
    "hookseal.producers",
    "hookseal.producers.dbapi",
    "hookseal.producers.django",
    "hookseal.producers.psycopg",
    "hookseal.producers.schema",
    "hookseal.producers.sqlalchemy",
    "hookseal.receiver",
    "hookseal.testing",
)
_PYRIGHT: Final = ROOT / ".types" / "bin" / "basedpyright"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The symbols of the public surface: how many there are, and what is wrong with those without a known type."""

    symbols: int
    problems: tuple[str, ...]


def judge(report: Mapping[str, Any], surface: frozenset[str]) -> Judged:
    """Return what a report of `--verifytypes --outputjson` says about the symbols of this surface. Pure.

    The surface names functions and classes. The members of a class belong to it, unless they are private.
    """
    found = [each for each in report["typeCompleteness"]["symbols"] if _belongs(each["name"], surface)]
    incomplete = [each for each in found if not each["isTypeKnown"] or each["isTypeAmbiguous"]]
    problems = (f"{each['name']}: {_first_message(each)}" for each in incomplete)
    return Judged(symbols=len(found), problems=tuple(sorted(problems)))


def _belongs(name: str, surface: frozenset[str]) -> bool:
    parts = name.split(".")
    owners = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return not any(part.startswith("_") and part != "__init__" for part in parts) and not owners.isdisjoint(surface)


def _first_message(symbol: Mapping[str, Any]) -> str:
    messages = [str(each["message"]) for each in symbol["diagnostics"]]
    return messages[0].splitlines()[0] if messages else "its type is not known"


def surface(modules: tuple[str, ...] = PUBLIC) -> frozenset[str]:
    """Return the full names of the functions and classes of the public surface, as they are defined."""
    reached: dict[str, Any] = {}
    for module in map(import_module, modules):
        for each in _names(module):
            _reach(each, reached)
    return frozenset(reached)


def _names(module: ModuleType) -> Iterator[Any]:
    """Yield what the module says is public; without `__all__` what it defines without an underscore."""
    if hasattr(module, "__all__"):
        yield from (getattr(module, name) for name in module.__all__)
        return
    for name, found in vars(module).items():
        if not name.startswith("_") and getattr(found, "__module__", None) == module.__name__:
            yield found


def _reach(found: Any, reached: dict[str, Any]) -> None:
    """Add this, and what can be reached from it, unless it is of another package or known already."""
    if found is None or isinstance(found, ModuleType):
        return
    for part in _parts(found):
        _reach(part, reached)
    function = inspect.unwrap(getattr(found, "__func__", getattr(found, "fget", found) or found))
    if not isinstance(function, type | FunctionType) or not function.__module__.startswith("hookseal"):
        return
    name = f"{function.__module__}.{function.__qualname__}"
    if name in reached or "<locals>" in name:
        return
    reached[name] = function
    for hint in get_type_hints(function, localns=_loaded_late()).values():
        _reach(hint, reached)
    if isinstance(function, type):
        for base in function.__bases__:
            _reach(base, reached)
        for member, value in vars(function).items():
            if not member.startswith("_"):
                _reach(value, reached)
        for attribute in _attributes(function):
            _reach(attribute, reached)


@cache
def _loaded_late() -> Mapping[str, Any]:
    """Return what `hookseal.admin` imports for type checkers only, by its name."""
    groups = {group: getattr(import_module(f"hookseal.admin.{module}"), group) for module, group in GROUPS.values()}
    return groups | {name: getattr(admin, name) for name in admin.__all__}


def _parts(hint: Any) -> Iterator[Any]:
    """Yield what a type consists of: `Page[Endpoint]` of both; the parameters of a Callable are a list."""
    origin = get_origin(hint)
    if origin is not hint:  # that of Generic is Generic
        yield origin
    yield from get_args(hint)
    if isinstance(hint, list):
        yield from hint


def _attributes(owner: type) -> Iterator[Any]:
    """Yield the classes of what `__init__` makes for public attributes: `self.endpoints: Final = Endpoints(...)`."""
    begin: Callable[..., object] | None = vars(owner).get("__init__")
    if not isinstance(begin, FunctionType) or "__dataclass_fields__" in vars(owner):
        return
    for node in ast.walk(ast.parse(dedent(inspect.getsource(begin)))):
        match node:
            case ast.AnnAssign(target=ast.Attribute(attr=name), value=ast.Call(func=ast.Name(id=made))):
                if not name.startswith("_"):
                    yield begin.__globals__.get(made)
            case _:
                pass


def main() -> int:
    """Run pyright, print what is not complete, and return the exit code."""
    run = subprocess.run(
        [_PYRIGHT, "--verifytypes", "hookseal", "--ignoreexternal", "--outputjson"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), sysconfig.get_paths()["purelib"]])},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        judged = judge(json.loads(run.stdout), surface())
    except (ValueError, KeyError):
        print(f"pyright has made no report (exit code {run.returncode}):\n{run.stdout}{run.stderr}", file=sys.stderr)
        return 1
    for problem in judged.problems:
        print(problem, file=sys.stderr)
    complete = judged.symbols - len(judged.problems)
    print(f"{complete} of {judged.symbols} symbols of the public interface have a complete type")
    return 1 if judged.problems or not judged.symbols else 0


if __name__ == "__main__":
    sys.exit(main())
