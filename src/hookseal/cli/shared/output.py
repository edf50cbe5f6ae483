"""What a command prints for a person beside plain text: lists, and lines of facts; and the options of output."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer
from rich.cells import cell_len, set_cell_size

from hookseal.cli.shared.moments import age
from hookseal.cli.shared.printing import (
    PIPE_CLOSED,
    emit,
    emit_error,
    fields_of,
    note,
    plain,
    printable,
    printable_body,
    rfc3339,
    secret_text,
    terminal_width,
)
from hookseal.cli.shared.wrapping import SPACE
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.ids import EVERY_TENANT

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from hookseal.admin import Page

    Item = TypeVar("Item", bound=DataclassInstance)

__all__ = [
    "HELP_OPTIONS",
    "PIPE_CLOSED",
    "Columns",
    "Json",
    "JsonLines",
    "Wide",
    "emit",
    "emit_error",
    "emit_page",
    "fields_of",
    "key_values",
    "note",
    "plain",
    "printable",
    "printable_body",
    "rfc3339",
    "secret_text",
    "table",
    "value_text",
]

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show every column, times in place of ages, and texts whole.")]

HELP_OPTIONS: Final = {"help_option_names": ["-h", "--help"]}
_CLOCK: Final = SystemClock()
_GAP: Final = "  "
_IDS: Final = ("_id", "ref")  # how the names of columns end that hold ids
_BEGINNINGS: Final = frozenset({"at", "created_at", "granted_at", "occurred_at", "started_at"})  # of what a row shows
_NOTHING: Final = "-"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a list, in order: the `usual` ones, and those that `--wide` adds. The first is the id of a row."""

    usual: tuple[str, ...]
    more: tuple[str, ...] = ()

    def shown(self, *, wide: bool, tenant: str | None = None) -> tuple[str, ...]:
        """Return the columns to show: without the tenant if all rows are of one `tenant`, which the command names."""
        columns = self.usual + self.more if wide else self.usual
        of_one = tenant not in {None, EVERY_TENANT}
        return tuple(column for column in columns if column != "tenant_id") if of_one else columns


def emit_page(
    page: "Page[Item]",
    columns: Columns,
    *,
    none: str,
    as_json: bool,
    wide: bool = False,
    tenant: str | None = None,
    row: "Callable[[Item], Mapping[str, object]]" = fields_of,
) -> None:
    """Print a page as JSON, or as a table of what `row` returns of each item, with the option for the next page.

    `none` says that there is nothing. `tenant` is that of the command, if it was given one.
    """
    shown, following = columns.shown(wide=wide, tenant=tenant), page.next_cursor

    def text() -> str:
        rows = list(map(row, page.items))
        searched = "" if following is None else " among those that were searched"
        lines = [table(rows, shown, wide=wide) if rows else none + searched]
        return "\n".join(lines if following is None else [*lines, f"more: --cursor {following}"])

    emit(page, as_json=as_json, text=text)


def table(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, wide: bool = False, clock: Clock = _CLOCK
) -> str:
    """Return the rows in aligned columns. A time is shown as an age, such as 3h, unless the table is `wide`.

    For a terminal the headings take one line, the columns that do not fit stand below each row behind their names, and
    a text that is longer than a line is cut, or left to `emit` if the table is `wide`. An id is neither folded nor cut,
    so that it can be copied.
    """
    headings = [_heading(column, wide=wide) for column in columns]
    cells = [[_cell(row.get(column), column, wide=wide, clock=clock) for column in columns] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)]
    most = terminal_width(sys.stdout)
    if most is None:
        return "\n".join(_aligned(row, widths) for row in (headings, *cells))
    is_whole = [column.endswith(_IDS) or column == columns[0] for column in columns]
    beside = _beside(widths, most)
    lines = [f"\x1b[1m{_aligned(headings, widths[:beside])}\x1b[0m"]
    for row in cells:
        below = list(zip(headings, row, is_whole, strict=True))[beside:]
        lines += [_aligned(row, widths[:beside]), *_below(below, most, wide=wide)]
    return "\n".join(lines)


def _heading(column: str, *, wide: bool) -> str:
    if not wide and column in _BEGINNINGS:
        return "age"
    return (column if wide else column.removesuffix("_at")).replace("_", " ")


def _cell(value: object, column: str, *, wide: bool, clock: Clock) -> str:
    if wide or not isinstance(value, datetime):
        return value_text(value)
    seconds = (clock.now() - value).total_seconds()
    if column in _BEGINNINGS or seconds >= 0:  # the clock of PostgreSQL may be a little ahead
        return str(age(max(seconds, 0), units=1))
    return f"in {age(-seconds, units=1)}"


def _beside(widths: Sequence[int], most: int) -> int:
    """Return how many columns stand beside each other on the first line of a row: as many as fit, at least one."""
    ends = accumulate(len(_GAP) + width for width in widths)
    return max(1, sum(end - len(_GAP) <= most for end in ends))


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return a line with as many of the cells as there are widths."""
    return _GAP.join(cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=False)).rstrip()


def _below(named: Sequence[tuple[str, str, bool]], most: int, *, wide: bool) -> Iterator[str]:
    """Yield the lines below the first of a row: each cell that says something, behind its heading.

    A cell that is too long is cut, unless it is to be whole or is in a `wide` table: then `emit` lays it out.
    """
    line = ""
    for heading, cell, is_whole in named:
        part = f"{_GAP}{heading}: {cell}"
        if cell == _NOTHING:
            continue
        if cell_len(line + part) <= most:
            line += part
            continue
        if line:
            yield line
        is_cut = cell_len(part) > most and not (is_whole or wide)
        line = f"{set_cell_size(part, most - 1).rstrip()}…" if is_cut else part
    if line:
        yield line


def key_values(facts: Mapping[str, object], *, width: int | None = None, indent: str = "") -> list[str]:
    """Return a line for each fact; the values begin in one column, at `width` if it is given."""
    column = max(map(len, facts)) if width is None else width - len(indent)
    return [f"{indent}{name.replace('_', ' ').ljust(column)}  {value_text(fact)}" for name, fact in facts.items()]


def value_text(value: object) -> str:
    """Return a value as a person reads it in what `emit` prints: `-` for nothing, times in UTC, text as `plain`."""
    match value:
        case None | "" | [] | ():
            return _NOTHING
        case dict():
            return " ".join(f"{plain(str(name))}={plain(str(fact))}" for name, fact in value.items()) or _NOTHING
        case bool():
            return "yes" if value else "no"
        case datetime():
            return rfc3339(value)
        case list() | tuple():
            return SPACE.join(map(value_text, value))  # words of others may follow each other as those of a command
        case _:
            return plain(str(value))
