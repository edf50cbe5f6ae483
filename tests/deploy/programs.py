"""The programs that come with the development requirements."""

import sys
from pathlib import Path


def program(name: str) -> Path:
    """Return the path of a program in the environment of these tests."""
    path = Path(sys.executable).parent / name
    assert path.is_file(), f"{name} is not installed: `make .venv/ready` brings .venv up to date"
    return path
