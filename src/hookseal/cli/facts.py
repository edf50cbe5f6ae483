"""Facts for a person: one name and value a line."""

from collections.abc import Mapping
from datetime import datetime

from hookseal.cli.output import printable, rfc3339


def facts(found: Mapping[str, object], *, width: int | None = None, indent: str = "") -> list[str]:
    """Return a line for each fact; the values begin in one column, `width` behind the left edge if it is given."""
    column = max(map(len, found)) if width is None else width - len(indent)
    return [f"{indent}{name.replace('_', ' ').ljust(column)}  {value(fact)}" for name, fact in found.items()]


def value(fact: object) -> str:
    """Return a fact as a person reads it: `-` for nothing, times in UTC, nothing that steers a terminal."""
    match fact:
        case None | "" | []:
            return "-"
        case bool():
            return "yes" if fact else "no"
        case datetime():
            return rfc3339(fact)
        case list():
            return " ".join(map(value, fact))
        case _:
            return printable(str(fact))
