"""Tables and numbers in Markdown. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

NOT_MEASURED: Final = "-"
_EXACT_BELOW: Final = 10
_TENTHS_BELOW: Final = 100


def number(value: float | None, unit: str = "") -> str:
    """Return a value with its significant digits, or a dash if there is none."""
    if value is None:
        return NOT_MEASURED
    if not value:
        text = "0"
    elif abs(value) < _EXACT_BELOW:
        text = f"{value:.2f}"
    else:
        text = f"{value:,.1f}" if abs(value) < _TENTHS_BELOW else f"{value:,.0f}"
    return f"{text}{'' if unit in {'', 'x'} else ' '}{unit}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column has names, and the others numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
