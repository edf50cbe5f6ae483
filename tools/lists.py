"""Lists as the site reads them: it wants four columns before what belongs to an entry, a repository two or three."""

import re

_ENTRY = re.compile(r"(-|\d+\.) +")


def nested(markdown: str) -> str:
    """Return the page with what belongs to an entry of a list moved right to the fourth column, also code."""
    lines: list[str] = []
    missing, is_code = 0, False
    for line in markdown.splitlines():
        if line.startswith("```"):
            missing, is_code = 0, not is_code
        elif is_code:
            pass
        elif entry := _ENTRY.match(line):
            missing = max(4 - entry.end(), 0)
        elif line.startswith(" ") and missing:
            line = " " * missing + line  # noqa: PLW2901 -- the line as it goes on
        elif line.strip():
            missing = 0
        lines.append(line)
    return "\n".join(lines) + "\n"
