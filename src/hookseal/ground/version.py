"""The installed version of hookseal."""

from importlib.metadata import version
from typing import Final

VERSION: Final = version("hookseal")
