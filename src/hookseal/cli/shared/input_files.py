"""Files that a command reads: named, or standard input for `-`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from hookseal.errors import Malformed
from hookseal.ground.log import mask_text

STANDARD_INPUT: Final = "-"


def require_one_from_stdin(*files: str | None) -> None:
    """Return if at most one of these files is standard input, which can be read only once. Raises `Malformed`."""
    if files.count(STANDARD_INPUT) > 1:
        raise Malformed("standard input can be read only once: give - for one file only", field="headers_file")


def read_input(source: str, at_most: int, *, field: str) -> bytes:
    """Return the content of the file, at most `at_most` + 1 bytes: one more shows that it is too long.

    Raises `Malformed` if the file cannot be read.
    """
    with _opened(source, field) as file:
        return file.read(at_most + 1)


def read_lines(source: str, at_most: int, *, field: str) -> Iterator[bytes]:
    """Yield the lines of the file. Raises `Malformed`, also for a line of more than `at_most` bytes."""
    with _opened(source, field) as file:
        while line := file.readline(at_most + 1):
            if len(line) > at_most:
                raise Malformed(f"a line has more than {at_most} bytes", field=field)
            yield line


@contextmanager
def _opened(source: str, field: str) -> Iterator[BinaryIO]:
    try:
        if source == STANDARD_INPUT:
            yield sys.stdin.buffer
        else:
            with Path(source).open("rb") as file:
                yield file
    except OSError as error:
        raise Malformed(f"{mask_text(source)} cannot be read ({error.strerror})", field=field) from None
