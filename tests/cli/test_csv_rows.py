"""A CSV file is read row by row with line numbers, and no error repeats its content."""

from io import BytesIO

import pytest

from hookseal.cli.csv_rows import MOST_LINE_BYTES, CsvRow, csv_rows
from hookseal.errors import Malformed

pytestmark = pytest.mark.req("SEC-12")

REQUIRED, KNOWN = frozenset({"a", "b"}), frozenset({"a", "b", "c"})
CANARY = "canary-of-a-secret"


def rows(content: bytes) -> list[CsvRow]:
    """Return the rows of this file."""
    return list(csv_rows(BytesIO(content), required=REQUIRED, known=KNOWN))


def test_rows_have_line_numbers() -> None:
    """Columns may be in any order, empty cells are omitted, and a row has the number of its first line."""
    found = rows(b'\xef\xbb\xbfb, a ,c\r\n1,2,3\r\n\r\n"x ""y"", \n z",,\n\xc3\xa4,5,\n')

    assert [
        (2, {"b": "1", "a": "2", "c": "3"}),
        (4, {"b": 'x "y", \n z'}),
        (6, {"b": "\u00e4", "a": "5"}),
    ] == [(row.line, row.cells) for row in found]
    assert all(row.problem is None for row in found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n", "lacks a, b"),
        (b"a\n", "lacks b"),
        (b"a,b,a\n", "names a column twice"),
        (f"a,{CANARY},b\n".encode(), "number 2 is none of a, b, c"),
        (f"acme,{CANARY}\n".encode(), "number 1, 2 is none of"),
        (b"\xff\xfea\x00,\x00b\x00\n\x00", "no CSV in UTF-8"),
        (f'a,b,"{CANARY}'.encode(), "no CSV in UTF-8"),
        (b"a," * MOST_LINE_BYTES, "no CSV in UTF-8"),
    ],
)
def test_a_missing_header_is_refused(content: bytes, message: str) -> None:
    """Without a first line that names the columns nothing is read, and the error does not repeat the line."""
    with pytest.raises(Malformed) as caught:
        csv_rows(BytesIO(content), required=REQUIRED, known=KNOWN)

    assert ("from_csv", None) == (caught.value.field, caught.value.__cause__)
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("broken", [f"{CANARY}", f"{CANARY},{CANARY},{CANARY},{CANARY}"])
def test_a_row_of_another_length_is_reported(broken: str) -> None:
    """A row with too few or too many cells is reported by its line, and the other rows are read."""
    first, wrong, last = rows(f"a,b\n1,2\n{broken}\n3,4\n".encode())

    assert [2, 3, 4] == [first.line, wrong.line, last.line]
    assert wrong.problem is not None
    number = "1 cell" if broken == CANARY else "4 cells"
    assert f"the row has {number} and the first line 2" in str(wrong.problem)
    assert "canary" not in f"{wrong.problem} {wrong!r}"
    assert {"a": "3", "b": "4"} == last.cells


@pytest.mark.parametrize(
    "broken",
    [
        f'"{CANARY}"x,2\n'.encode(),
        f'1,"{CANARY}\n5,6\n'.encode(),
        f"1,{CANARY}\xff\n".encode("latin-1"),
        b"1," + b"x" * MOST_LINE_BYTES + b"\n",
        b'1,"' + b"x\n" * 200_000,
    ],
    ids=["behind a quote", "a quote without end", "no UTF-8", "a line that is too long", "a cell that is too long"],
)
def test_invalid_csv_ends_the_reading(broken: bytes) -> None:
    """Invalid CSV ends the reading, since row boundaries are then unknown; earlier rows count."""
    first, wrong = rows(b"a,b\n1,2\n" + broken + b"3,4\n")

    assert (2, None, False) == (first.line, first.problem, first.is_last)
    assert (3, True) == (wrong.line, wrong.is_last)
    assert "what follows was not read" in str(wrong.problem)
    assert "canary" not in str(wrong.problem)


def test_a_file_is_read_as_needed() -> None:
    """A file of any length is read only as far as rows are requested, plus one buffer."""
    file = BytesIO(b"a,b\n" + b"1,2\n" * 1_000_000)
    read = csv_rows(file, required=REQUIRED, known=KNOWN)

    assert 2 == next(read).line
    assert file.tell() < 100_000


def test_a_row_shows_only_its_line() -> None:
    """The text form of a row is its line number."""
    [row] = rows(f"a,b\n1,{CANARY}\n".encode())

    assert "CsvRow(line=2)" == f"{row!r}" == str(row)
