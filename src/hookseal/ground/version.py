"""The version of hookseal, as `pyproject.toml` has it too: to ask for that of the package takes 30 ms of CPU."""

from typing import Final

VERSION: Final = "0.1.0"
