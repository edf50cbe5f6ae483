"""Which tests can fail: found in the syntax tree, so that an emptied test proves nothing.

A test asserts if its function, or a function of the tests that it calls, has an `assert` of something that is not a
constant, or asks pytest for an exception, a warning or a failure. Functions are found by their names, so a test that
calls another function of the name of one that asserts is not noticed; nor is an assertion that always holds.
"""

import ast
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_OF_PYTEST: Final = frozenset({"raises", "warns", "fail", "run_state_machine_as_test"})
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(slots=True)
class _Function:
    """What the definitions of one name in one module do."""

    does_assert: bool = False
    calls: set[str] = field(default_factory=set)


def that_assert_nothing(root: Path, names: Collection[str]) -> list[str]:
    """Return those of these tests, named as `tests/a.py::test_b`, that have no assertion, in order.

    A test that is no function, such as the case of a state machine, is not judged.
    """
    asserting, functions = set[str](), dict[str, dict[str, _Function]]()
    for file in sorted((root / "tests").rglob("*.py")):
        functions[str(file.relative_to(root))] = _functions(ast.parse(file.read_text(encoding="utf-8")))
    while True:
        found = {
            name
            for of_module in functions.values()
            for name, function in of_module.items()
            if function.does_assert or function.calls & asserting
        }
        if found == asserting:
            break
        asserting = found
    return sorted(name for name in names if not _asserts(name, functions, asserting))


def _asserts(test: str, functions: dict[str, dict[str, _Function]], asserting: Collection[str]) -> bool:
    module, _, name = test.partition("::")
    function = functions.get(module, {}).get(name.rpartition("::")[2])
    return function is None or function.does_assert or not function.calls.isdisjoint(asserting)


def _functions(tree: ast.Module) -> dict[str, _Function]:
    """Return the functions of a module by name, those inside of classes and functions as well."""
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    found: defaultdict[str, _Function] = defaultdict(_Function)
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            function = found[node.name]
            function.does_assert |= any(_is_assertion(each) for each in ast.walk(node))
            function.calls |= set(_called(node, modules))
    return found


def _is_assertion(node: ast.AST) -> bool:
    match node:
        case ast.Assert(test=ast.Constant()):
            return False
        case ast.Assert():
            return True
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name in _OF_PYTEST
        case _:
            return False


def _called(function: ast.AST, modules: Collection[str]) -> Iterator[str]:
    """Yield the names of what is called, or given to something that may call it."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            yield node.id
        elif (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {*modules, "self"}
        ):
            yield node.attr
