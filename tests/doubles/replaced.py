"""Copies records with changes, whichever kind of record they are."""

import dataclasses
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def replace(record: T, **changes: Any) -> T:
    """Return a copy of a dataclass or a struct with these fields changed."""
    if isinstance(record, msgspec.Struct):
        return msgspec.structs.replace(record, **changes)
    copied: T = dataclasses.replace(record, **changes)  # type: ignore[type-var]
    return copied
