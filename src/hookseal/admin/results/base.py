"""What results have in common: pages of them, and how one is made of a row."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Result = TypeVar("Result", bound=DataclassInstance)
else:
    Result = TypeVar("Result")
T = TypeVar("T")

HIDDEN: Final = {"hidden": True}  # the metadata of a field that no command prints as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Up to `limit` results. `next_cursor` is the cursor of the next page, None after the last one."""

    items: tuple[T, ...]
    next_cursor: str | None


def of_row(kind: "type[Result]", row: Mapping[str, Any], **more: Any) -> "Result":
    """Return the result with the values of the row that have the names of its fields, and `more`.

    A field with a default may be missing.
    """
    values = {**row, **more}
    names = [each.name for each in fields(kind) if each.default is MISSING or each.name in values]
    return kind(**{name: _frozen(values[name]) for name in names})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
