"""Writes the description of the package: the README, whose links lead to the repository of this version.

While the project has no address (`project.urls` with `Source`), the description has the words of the links only.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = re.compile(r"(!?)\[([^]]*)\]\((?!https?://|#)([^)]+)\)")


class DescriptionHook(MetadataHookInterface):
    """Sets `readme`, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description to the metadata of the project."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source")
        link = r"\2" if source is None else rf"\1[\2]({source}/blob/v{metadata['version']}/\3)"
        linked = _RELATIVE.sub(link, text)
        metadata["readme"] = {"content-type": "text/markdown", "text": linked}
