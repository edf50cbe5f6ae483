"""What a command prints: one JSON object, or text for a person; and how it ends in an error."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print exactly one JSON object.")]
JsonLines = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object a line.")]

HELP_OPTIONS: Final = {"help_option_names": ["-h", "--help"]}
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE, as shells report it
_WIDTH: Final = 80


def emit(value: Mapping[str, object], *, as_json: bool, text: Callable[[], str] | str) -> None:
    """Print the value as one JSON object on one line, or the text, on standard output."""
    if as_json:
        _print(_escaped(msgspec.json.encode(_plain(value)).decode("utf-8")))
    else:
        _print(text if isinstance(text, str) else text())


def emit_error(*, code: str, message: str, field: str | None, as_json: bool) -> None:
    """Print an error: one JSON object on standard output, or its lines on standard error."""
    message = message.encode("utf-8", "backslashreplace").decode()  # an argument may hold what is no UTF-8
    if as_json:
        emit({"error": {"code": code, "message": message, "field": field}}, as_json=True, text="")
        return
    for line in message.splitlines():
        typer.echo(f"hookseal: {printable(line)}", err=True)


def rfc3339(moment: datetime) -> str:
    """Return the moment in UTC with milliseconds and `Z`. Raises `ValueError` if it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone cannot be printed")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """Return the text with control characters spelled out, so that it cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Return the rows as a table: for a terminal drawn and folded to its width, else plain and aligned."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    headings = [column.replace("_", " ") for column in columns]
    return _drawn(headings, cells) if sys.stdout.isatty() else _aligned([headings, *cells])


def _drawn(headings: list[str], cells: list[list[str]]) -> str:
    console = Console(file=sys.stdout, width=max(_WIDTH, Console().width), markup=False, highlight=False)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for row in cells:
        grid.add_row(*row)
    with console.capture() as captured:
        console.print(grid)
    return captured.get().strip("\n")


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return rfc3339(value)
        case list() | tuple():
            return " ".join(map(_cell, value))
        case _:
            return printable(str(value))


def _plain(value: object) -> object:
    match value:
        case datetime():
            return rfc3339(value)
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bytes() | bytearray() | memoryview():
            raise TypeError("bytes are not printed")
        case _:
            return value


def _escaped(text: str) -> str:
    """Return the JSON text, which says the same and cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _print(text: str) -> None:
    try:
        typer.echo(text)
    except BrokenPipeError:
        # The reader went away. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
