"""The log events of the product, read from its source: each call of a logger, with its levels and fields.

What cannot be read is an error, so that no event and no field is left out.
"""

import ast
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

LEVELS: Final = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
_LOGGERS: Final = frozenset({"log", "_log", "success_log"})
# What a part of a name stands for that the source makes while it runs, by the module that logs it.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "worker/periodic.py": ("LOOP",),
    "worker/maintenance.py": ("TASK",),
    "worker/processes/parent.py": ("worker", "api"),
}
# Fields that reach a logger through a parameter: those that the callers of this function name.
_CALLERS: Final = {"worker/maintenance.py": "survived"}
_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Emitted:
    """What the source logs under a name: at which levels, and with which fields."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def emitted(folder: Path) -> dict[str, Emitted]:
    """Return every log event of the modules in this folder by its name. Raises `ValueError` for what is unreadable."""
    found = defaultdict[str, Emitted](Emitted)
    for module, tree in _modules(folder).items():
        for function, call in _calls(tree):
            if not _is_logging(call):
                continue
            assert isinstance(call.func, ast.Attribute)  # noqa: S101 -- `_is_logging` says so
            for name in _names(module, call):
                event = found[name]
                event.levels.add(LEVELS[call.func.attr])
                event.fields |= _Reader(folder, module, tree, function).fields(call)
    return dict(found)


def bound(folder: Path) -> set[str]:
    """Return the fields that a logger has on all of its lines."""
    return {
        keyword.arg
        for tree in _modules(folder).values()
        for _, call in _calls(tree)
        for keyword in call.keywords
        if keyword.arg is not None and _called(call) in {"bind", "bind_contextvars"}
    }


def named(folder: Path, classes: frozenset[str]) -> set[str]:
    """Return the first arguments of these classes: the names of loops and tasks, which begin those of their events."""
    return {
        call.args[0].value
        for tree in _modules(folder).values()
        for _, call in _calls(tree)
        if _called(call) in classes
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


@cache
def _modules(folder: Path) -> dict[str, ast.Module]:
    return {
        path.relative_to(folder).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    }


@cache
def _calls(tree: ast.Module) -> Sequence[tuple[_Function | None, ast.Call]]:
    """Return each call, with the innermost function that has it."""
    found = list[tuple[_Function | None, ast.Call]]()
    left: list[tuple[_Function | None, ast.AST]] = [(None, tree)]
    while left:
        function, node = left.pop()
        if isinstance(node, ast.Call):
            found.append((function, node))
        inner = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        left += [(inner, child) for child in ast.iter_child_nodes(node)]
    return found


@cache
def _functions(folder: Path) -> Mapping[str, Sequence[tuple[str, ast.FunctionDef]]]:
    """Return the functions of the modules by their names, each with its module."""
    found = defaultdict[str, list[tuple[str, ast.FunctionDef]]](list)
    for module, tree in _modules(folder).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found[node.name].append((module, node))
    return found


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _is_logging(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in LEVELS:
        return False
    match call.func.value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _LOGGERS
        case ast.Call(func=ast.Attribute(attr="get_logger" | "logger")):
            return True
        case _:
            return False


def _names(module: str, call: ast.Call) -> Sequence[str]:
    return _texts(module, call.args[0])


def _texts(module: str, node: ast.expr) -> Sequence[str]:
    match node:
        case ast.Constant(value=str(text)):
            return (text,)
        case ast.IfExp(body=one, orelse=other):
            return (*_texts(module, one), *_texts(module, other))
        case ast.JoinedStr(values=[ast.FormattedValue(), ast.Constant(value=str(end))]) if module in _PARTS:
            return tuple(f"{part}{end}" for part in _PARTS[module])
        case _:
            raise ValueError(f"{module}:{node.lineno}: the name of this log event cannot be read: {ast.unparse(node)}")


class _Reader:
    """Reads the fields of a call of a logger."""

    def __init__(self, folder: Path, module: str, tree: ast.Module, function: _Function | None) -> None:
        self._folder = folder
        self._module = module
        self._tree = tree
        self._function = function

    def fields(self, call: ast.Call) -> set[str]:
        """Return the names of the fields, also of those that the logger was bound to in this function."""
        assert isinstance(call.func, ast.Attribute)  # noqa: S101 -- `_is_logging` says so
        found = {"exception"} if call.func.attr == "exception" else set[str]()
        if isinstance(call.func.value, ast.Name):
            for value in self._assigned(call.func.value.id):
                if isinstance(value, ast.Call) and _called(value) == "bind":
                    found |= {keyword.arg for keyword in value.keywords if keyword.arg is not None}
        for keyword in call.keywords:
            found |= self._of(keyword.value) if keyword.arg is None else {keyword.arg}
        return {"exception" if name == "exc_info" else name for name in found}

    def _of(self, value: ast.expr) -> set[str]:
        """Return the keys of a mapping that becomes fields."""
        match value:
            case ast.Dict(keys=keys, values=values):
                found = set[str]()
                for key, inner in zip(keys, values, strict=True):
                    found |= self._of(inner) if key is None else {ast.literal_eval(key)}
                return found
            case ast.IfExp(body=one, orelse=other):
                return self._of(one) | self._of(other)
            case ast.Call():
                return self._returned(_called(value), value.lineno)
            case ast.Name(id=name) if assigned := self._assigned(name):
                return set[str]().union(*map(self._of, assigned))
            case ast.Name(id=name) if self._module in _CALLERS:
                calls = (call for _, call in _calls(self._tree) if _called(call) == _CALLERS[self._module])
                return {each.arg for call in calls for each in call.keywords if each.arg is not None}
        raise ValueError(f"{self._module}:{value.lineno}: these fields cannot be read: {ast.unparse(value)}")

    def _assigned(self, name: str) -> list[ast.expr]:
        """Return what is assigned to this name in the function."""
        if self._function is None:
            return []
        found = list[ast.expr]()
        for node in ast.walk(self._function):
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    found.append(value)
                case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                    found.append(value)
        return found

    def _returned(self, name: str, line: int) -> set[str]:
        """Return the keys of the mapping that a function of this name returns: that of this module, else any."""
        named = _functions(self._folder).get(name, ())
        for module, node in sorted(named, key=lambda each: each[0] != self._module):
            reader = _Reader(self._folder, module, _modules(self._folder)[module], node)
            returns = [each.value for each in ast.walk(node) if isinstance(each, ast.Return)]
            dicts = [each for each in returns if isinstance(each, ast.Dict | ast.IfExp)]
            if found := set[str]().union(*map(reader._of, dicts)):
                return found
        raise ValueError(f"{self._module}:{line}: these fields cannot be read: {name}(...)")
