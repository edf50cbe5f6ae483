"""Finds the public functions of a package that take something of a tenant, by their annotations."""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import msgspec

from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.secrets.boot import Unlocked

_OWNED = {TenantId, EndpointId, DeliveryId}
_ACTORS = {Unlocked}  # belongs to the installation and acts for any tenant


def functions_with_a_tenant(*packages: str) -> set[str]:
    """Return every public function and method of these packages that takes a tenant, or an object with one."""
    return {name for package in packages for module in _modules(package) for name in _of_module(module)}


def _modules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        yield importlib.import_module(found.name)


def _of_module(module: ModuleType) -> Iterator[str]:
    home = module.__name__.removeprefix("hookseal.")
    for name, found in vars(module).items():
        if name.startswith("_") or getattr(found, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(found):
            for method, function in _methods(found):
                if _takes(function):
                    yield f"{home}.{name}.{method}"
        elif isinstance(found, FunctionType) and _takes(found):
            yield f"{home}.{name}"


def _methods(owner: type) -> Iterator[tuple[str, Any]]:
    for name, found in vars(owner).items():
        function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if not name.startswith("_") and isinstance(function, FunctionType):
            yield name, function


def _takes(function: Any) -> bool:
    hints = typing.get_type_hints(inspect.unwrap(function))
    return any(_holds(hint, set()) for name, hint in hints.items() if name != "return")


def _holds(hint: Any, seen: set[Any]) -> bool:
    """Return whether a value of this type belongs to a tenant, or contains one that does."""
    if hint in _OWNED:
        return True
    if hint in _ACTORS:
        return False
    is_record = isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, msgspec.Struct))
    if is_record and hint not in seen:
        seen.add(hint)
        return any(_holds(field, seen) for field in typing.get_type_hints(hint).values())
    return any(_holds(part, seen) for part in typing.get_args(hint) if not isinstance(part, str | list))
