"""What a command prints for a person beside plain text: lists, and lines of facts; and the options of output."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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
    printable,
    printable_body,
    rfc3339,
)
from hookseal.ground.clock import Clock, SystemClock

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
    "printable",
    "printable_body",
    "rfc3339",
    "table",
    "value_text",
]

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print exactly one JSON object.")]
JsonLines = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object a line.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show every column, times in place of ages, and texts whole.")]

HELP_OPTIONS: Final = {"help_option_names": ["-h", "--help"]}
_CLOCK: Final = SystemClock()
_LEAST_WIDTH: Final = 40  # a narrower terminal wraps the lines itself
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
        return columns if tenant is None else tuple(column for column in columns if column != "tenant_id")


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

    On a terminal no line is longer than the terminal is wide: columns that do not fit stand on further, indented lines
    of each row, and a text that is longer than a line is cut, unless the table is `wide`. An id is neither folded nor
    cut, so that it can be copied.
    """
    headings = [_heading(column, wide=wide) for column in columns]
    cells = [[_cell(row.get(column), column, wide=wide, clock=clock) for column in columns] for row in rows]
    if not sys.stdout.isatty():
        widths = _widths([headings, *cells])
        return "\n".join(line for row in (headings, *cells) for line in _lines(row, widths, [range(len(widths))]))
    most = max(shutil.get_terminal_size().columns, _LEAST_WIDTH)
    if not wide:
        is_whole = [column.endswith(_IDS) or column == columns[0] for column in columns]
        cells = [
            [cell if whole else _cut(cell, most) for cell, whole in zip(row, is_whole, strict=True)] for row in cells
        ]
    widths = _widths([headings, *cells])
    places = _places(widths, most)
    bold = [f"\x1b[1m{line}\x1b[0m" for line in _lines(headings, widths, places)]
    return "\n".join([*bold, *(line for row in cells for line in _lines(row, widths, places))])


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


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _cut(text: str, most: int) -> str:
    """Return the text, cut to the length of a line that is indented."""
    room = most - len(_GAP)
    return text if cell_len(text) <= room else f"{set_cell_size(text, room - 1).rstrip()}…"


def _places(widths: Sequence[int], most: int) -> list[list[int]]:
    """Return which columns stand on each line of a row: as many as fit; those after the first line are indented."""
    places: list[list[int]] = [[]]
    used = 0
    for column, width in enumerate(widths):
        room = min(width, most - len(_GAP))
        if places[-1] and used + len(_GAP) + room > most:
            places.append([])
            used = 0
        used += room if column == 0 else len(_GAP) + room
        places[-1].append(column)
    return places


def _lines(cells: Sequence[str], widths: Sequence[int], places: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yield the lines of a row, without those after the first that have nothing."""
    for number, columns in enumerate(places):
        if number == 0 or any(cells[column] != _NOTHING for column in columns):
            padded = _GAP.join(cells[column] + " " * (widths[column] - cell_len(cells[column])) for column in columns)
            yield (_GAP * bool(number) + padded).rstrip()


def key_values(facts: Mapping[str, object], *, width: int | None = None, indent: str = "") -> list[str]:
    """Return a line for each fact; the values begin in one column, at `width` if it is given."""
    column = max(map(len, facts)) if width is None else width - len(indent)
    return [f"{indent}{name.replace('_', ' ').ljust(column)}  {value_text(fact)}" for name, fact in facts.items()]


def value_text(value: object) -> str:
    """Return a value as a person reads it: `-` for nothing, times in UTC, nothing that steers a terminal."""
    match value:
        case None | "" | [] | ():
            return _NOTHING
        case dict():
            return (
                " ".join(f"{printable(str(name))}={printable(str(fact))}" for name, fact in value.items()) or _NOTHING
            )
        case bool():
            return "yes" if value else "no"
        case datetime():
            return rfc3339(value)
        case list() | tuple():
            return " ".join(map(value_text, value))
        case _:
            return printable(str(value))
