"""Files that a command reads: named, or standard input for `-`."""

import sys
from pathlib import Path
from typing import Final

from hookseal.ground.errors import Malformed
from hookseal.ground.log import masked_text

STANDARD_INPUT: Final = "-"


def read_input(source: str, at_most: int, *, field: str) -> bytes:
    """Return what the file holds: `at_most` bytes, and one more if there are more. Raises `Malformed`."""
    try:
        if source == STANDARD_INPUT:
            return sys.stdin.buffer.read(at_most + 1)
        with Path(source).open("rb") as file:
            return file.read(at_most + 1)
    except OSError as error:
        raise Malformed(f"{masked_text(source)} cannot be read ({error.strerror})", field=field) from None
