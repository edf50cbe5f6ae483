"""Reads the examples of docs/commands.md."""

import json
import re
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "commands.md"


def documented(command: str) -> dict[str, Any]:
    """Return the first JSON object that docs/commands.md shows after the name of the command."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(f"`{command}`")
    found = re.search(r"^```json\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
    assert found is not None, command
    shown: dict[str, Any] = json.loads(found[1])
    return shown
