"""Lays out a line for a terminal: broken between words, never in a command, an id or a URL. Pure.

A command in a line of text stands in backticks. A line of two spaces and a text, or of more
spaces and a command of hookseal, is to be copied, so it stays whole.
"""

import re
from collections.abc import Callable
from typing import Final

INDENT: Final = "  "
_PIECES: Final = re.compile(r"[^\s`]*`[^`]*`[^\s`]*|\S+")
# No command of another program, and nothing with which a shell would start one: part of a line may be of others.
_COMMAND: Final = re.compile(r"`(hookseal [^`;|&$<>(){}\\]+)`[.,;:]*")
# `name   value` as in a list of facts, or `  name: value` as below the row of a table.
_LABEL: Final = re.compile(r"(?: *[\w-]+(?: [\w-]+)* {2,}|  [\w-]+(?: [\w-]+)*: )(?=\S)")
_COPIED: Final = re.compile(r"  (?:\S| *hookseal )")


def wrapped(line: str, width: int, *, prefix: str = "", length: Callable[[str], int] = len) -> list[str]:
    """Return the line as lines of at most `width` columns; `length` counts those of a text.

    The lines after the first begin where the text behind the prefix or the label begins. A value with a piece that
    fits nowhere behind its label stands below it. A command of hookseal that fits on no line stands on one of its own
    without its backticks, and any other such piece on one of its own: only these are longer than `width`.
    """
    label = _LABEL.match(line)
    if length(prefix + line) <= width or (label is None and _COPIED.match(line)):
        return [prefix + line]
    head = prefix + (line[: len(line) - len(line.lstrip())] if label is None else label[0])
    pieces = _PIECES.findall(line if label is None else line[label.end() :])
    if len(pieces) == 1 and not head.strip():
        return [line]
    if label is not None and any(length(head + piece) > width for piece in pieces if not _COMMAND.fullmatch(piece)):
        below = " " * (len(head) - len(head.lstrip())) + INDENT
        return [head.rstrip(), *_filled(pieces, below, below, width, length)]
    return _filled(pieces, head, " " * length(head), width, length)


def _filled(pieces: list[str], first: str, later: str, width: int, length: Callable[[str], int]) -> list[str]:
    """Return lines with these pieces: the first begins with `first`, the others with `later`."""
    alone = later if len(later) <= 2 * len(INDENT) else INDENT
    lines: list[str] = []
    line, is_empty = first, True
    for piece in pieces:
        if length(later + piece) > width:
            command = _COMMAND.fullmatch(piece)
            lines += [line.rstrip()] if line.strip() else []
            lines.append(alone + piece if command is None else INDENT + command[1])
            line, is_empty = later, True
        elif is_empty:
            line, is_empty = line + piece, False
        elif length(f"{line} {piece}") <= width:
            line = f"{line} {piece}"
        else:
            lines.append(line)
            line = later + piece
    return lines if is_empty and not line.strip() else [*lines, line]
