"""Reads the rows of a CSV file that may contain secrets, one at a time; no message repeats a value."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from hookseal.errors import Malformed
from hookseal.ground.ids import plural

if TYPE_CHECKING:  # its type has no public name
    import _csv

MOST_LINE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvRow:
    """A row with the line on which it begins: its cells by column, without empty ones, or its problem.

    With `is_last` the reading ends here, because it is unknown where the next row begins.
    """

    line: int
    cells: Mapping[str, str]
    problem: Malformed | None = None
    is_last: bool = False

    def __repr__(self) -> str:
        return f"CsvRow(line={self.line})"


def csv_rows(file: BinaryIO, *, required: frozenset[str], known: frozenset[str]) -> Iterator[CsvRow]:
    """Return an iterator over the rows of a CSV file in UTF-8 whose first line names the columns.

    The first line is read at once. Raises `Malformed` if it is missing, or if a column is unknown, named twice or
    missing.
    """
    reader = csv.reader(_lines(file), strict=True)
    first = _next(reader)
    if first is None:
        raise _malformed("the file is empty: its first line must name the columns")
    if isinstance(first, Malformed):
        raise first
    return _rows(reader, _header(first, required, known))


def _header(names: list[str], required: frozenset[str], known: frozenset[str]) -> list[str]:
    names = [name.strip() for name in names]
    # Without a header the first line may be a row with secrets, so the message has only numbers of columns.
    if unknown := [str(number) for number, name in enumerate(names, 1) if name not in known]:
        raise _malformed(
            f"the first line must name the columns; number {', '.join(unknown)} is none of " + ", ".join(sorted(known))
        )
    if len(set(names)) < len(names):
        raise _malformed("the first line names a column twice")
    if missing := required - set(names):
        raise _malformed(f"the first line lacks {', '.join(sorted(missing))}")
    return names


def _rows(reader: "_csv.Reader", names: list[str]) -> Iterator[CsvRow]:
    while True:
        line = reader.line_num + 1
        cells = _next(reader)
        if cells is None:
            return
        if isinstance(cells, Malformed):
            yield CsvRow(line=line, cells={}, problem=cells, is_last=True)
            return
        if not cells:  # an empty line
            continue
        if len(cells) != len(names):
            problem = _malformed(f"the row has {plural(len(cells), 'cell', 'cells')} and the first line {len(names)}")
            yield CsvRow(line=line, cells={}, problem=problem)
            continue
        yield CsvRow(line=line, cells={name: cell for name, cell in zip(names, cells, strict=True) if cell})


def _next(reader: "_csv.Reader") -> list[str] | Malformed | None:
    try:
        return list(next(reader))
    except StopIteration:
        return None
    except (csv.Error, ValueError):  # ValueError includes UnicodeDecodeError; their messages may contain what was read
        pass
    return _malformed(
        f"this is no CSV in UTF-8 with lines of at most {MOST_LINE_BYTES} bytes (a quote that does not end, "
        "or text after one?); what follows was not read"
    )


def _lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines, each decoded by itself, so that an error is reported with its line."""
    encoding = "utf-8-sig"
    while raw := file.readline(MOST_LINE_BYTES + 1):
        if len(raw) > MOST_LINE_BYTES:
            raise ValueError
        yield raw.decode(encoding)
        encoding = "utf-8"


def _malformed(message: str) -> Malformed:
    return Malformed(message, field="from_csv")
