"""Reads the vectors: answers that are known from elsewhere, as data."""

import json
from importlib.resources import files
from typing import Any


def vectors(file: str) -> Any:
    """Return what the file of that name says."""
    return json.loads(files("tests.vectors").joinpath(file).read_text(encoding="utf-8"))
