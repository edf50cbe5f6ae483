"""What a command prints for a person beside plain text: tables, and lines of facts; and the options of output."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

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

__all__ = [
    "HELP_OPTIONS",
    "PIPE_CLOSED",
    "Json",
    "JsonLines",
    "emit",
    "emit_error",
    "fields_of",
    "key_values",
    "note",
    "page_text",
    "printable",
    "printable_body",
    "rfc3339",
    "table",
    "value_text",
]

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print exactly one JSON object.")]
JsonLines = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object a line.")]

HELP_OPTIONS: Final = {"help_option_names": ["-h", "--help"]}
_WIDTH: Final = 80
_NEVER_FOLDED: Final = ("_id", "_at", "ref")
_LEAST: Final = 12  # characters of a column that may be folded


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Return the rows as a table: drawn and folded to the width of a terminal; else plain, in aligned columns.

    Ids and times are never folded, so that they can be copied: the table may then be wider than the terminal.
    """
    cells = [[value_text(row.get(column)) for column in columns] for row in rows]
    headings = [column.replace("_", " ") for column in columns]
    return _drawn(columns, headings, cells) if sys.stdout.isatty() else _aligned([headings, *cells])


def page_text(rows: Sequence[Mapping[str, object]], columns: Sequence[str], following: str | None, *, none: str) -> str:
    """Return the rows of a page as a table, or `none` if there are none, and the option for the next page."""
    text = table(rows, columns) if rows else none
    return text if following is None else f"{text}\nmore: --cursor {following}"


def _drawn(columns: Sequence[str], headings: list[str], cells: list[list[str]]) -> str:
    whole = [column.endswith(_NEVER_FOLDED) for column in columns]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    needed = sum(width if is_whole else min(width, _LEAST) for width, is_whole in zip(widths, whole, strict=True))
    console = Console(
        file=sys.stdout,
        width=max(_WIDTH, Console().width, needed + 3 * len(columns) + 2),
        markup=False,
        highlight=False,
    )
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, is_whole in zip(headings, whole, strict=True):
        grid.add_column(heading, overflow="fold", no_wrap=is_whole)
    for row in cells:
        grid.add_row(*row)
    with console.capture() as captured:
        console.print(grid)
    return captured.get().strip("\n")


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def key_values(facts: Mapping[str, object], *, width: int | None = None, indent: str = "") -> list[str]:
    """Return a line for each fact; the values begin in one column, at `width` if it is given."""
    column = max(map(len, facts)) if width is None else width - len(indent)
    return [f"{indent}{name.replace('_', ' ').ljust(column)}  {value_text(fact)}" for name, fact in facts.items()]


def value_text(value: object) -> str:
    """Return a value as a person reads it: `-` for nothing, times in UTC, nothing that steers a terminal."""
    match value:
        case None | "" | [] | ():
            return "-"
        case dict():
            return " ".join(f"{printable(str(name))}={printable(str(fact))}" for name, fact in value.items()) or "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return rfc3339(value)
        case list() | tuple():
            return " ".join(map(value_text, value))
        case _:
            return printable(str(value))
