"""Reads the test vectors: known answers from other sources, as data."""

import json
from importlib.resources import files
from typing import Any


def vectors(file: str) -> Any:
    """Return the content of the file of that name."""
    return json.loads(files("tests.vectors").joinpath(file).read_text(encoding="utf-8"))
