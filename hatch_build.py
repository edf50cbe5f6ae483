"""Writes the description of the package: the README, with links that lead to the repository of this version."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = re.compile(r"\]\((?!https?://|#)([^)]+)\)")


class DescriptionHook(MetadataHookInterface):
    """Sets `readme`, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description to the metadata of the project."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        here = f"{metadata['urls']['Source']}/blob/v{metadata['version']}"
        linked = _RELATIVE.sub(rf"]({here}/\1)", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": linked}
