"""SQL lives in `.sql` files beside the module that runs it, one statement under each `-- name:` line."""

import re
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_NAME: Final = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def statements(package: str, file: str) -> MappingProxyType[str, str]:
    """Return the statements of a file by name, each as it stands under its `-- name: NAME` line."""
    parts = _NAME.split(files(package).joinpath(file).read_text(encoding="utf-8"))
    return MappingProxyType({name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)})
