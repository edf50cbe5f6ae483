"""The one line on standard output by which a worker, or the parent of several, reports that it is ready."""

from collections.abc import Mapping
from typing import TextIO

import msgspec

from hookseal.ground.errors import Unavailable


def print_ready(output: TextIO, facts: Mapping[str, object]) -> None:
    """Print these facts as one JSON object. Raises `Unavailable` if the output is closed, full or has no reader."""
    try:
        output.write(msgspec.json.encode({"event": "worker.ready", **facts}).decode() + "\n")
        output.flush()
    except OSError as error:
        raise unwritable(type(error).__name__) from None


def unwritable(why: str) -> Unavailable:
    """Return the error of a worker whose output cannot be written."""
    return Unavailable(
        f"that the worker is ready cannot be written to its standard output ({why}): "
        "keep its reader open, make room on its disk, or redirect it to another file"
    )
