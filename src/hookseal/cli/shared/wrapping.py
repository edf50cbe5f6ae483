"""Lays out a line for a terminal: broken between words, never in a command, an id or a URL. Pure.

A command in a line of text stands in backticks. A line of two spaces and a text, or of more
spaces and a command of hookseal, is to be copied, so it stays whole.

A text of others has `SPACE` for each of its spaces, or stands between “ and ”. A line that begins within
it has a bar before it, so that nothing in it can be taken for a command of hookseal.
"""

import re
from collections.abc import Callable
from typing import Final

INDENT: Final = "  "
SPACE: Final = "\ue002"  # of a text of others; it is as wide as the space that it stands for
_BAR: Final = "| "
_QUOTED: Final = re.compile("“[^”]*”")
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
    line = _QUOTED.sub(lambda quoted: quoted[0].replace(" ", SPACE), line)
    label = _LABEL.match(line)
    head = prefix + (line[: len(line) - len(line.lstrip())] if label is None else label[0])
    rest = line if label is None else line[label.end() :]
    pieces = [word for piece in _PIECES.findall(rest) for word in _words(piece)]
    is_of_others = not head.strip() and pieces != [] and pieces[0].startswith(_BAR)
    whole = f"{head}{_BAR}{line.lstrip()}" if is_of_others else prefix + line
    if length(whole) <= width or (label is None and not is_of_others and _COPIED.match(line)):
        return [whole]
    if len(pieces) == 1 and not head.strip():
        return [line]
    if label is not None and any(length(head + piece) > width for piece in pieces if not _COMMAND.fullmatch(piece)):
        below = " " * (len(head) - len(head.lstrip())) + INDENT
        return [head.rstrip(), *_filled(pieces, below, below, width, length)]
    return _filled(pieces, head, " " * length(head), width, length)


def _words(piece: str) -> list[str]:
    """Return the words of a text of others, each with a bar, or the piece itself if it has no space of others."""
    return [_BAR + word for word in piece.replace(SPACE, " ").split()] if SPACE in piece else [piece]


def _filled(pieces: list[str], first: str, later: str, width: int, length: Callable[[str], int]) -> list[str]:
    """Return lines with these pieces: the first begins with `first`, the others with `later`.

    Of a word of others the bar is left out, unless nothing stands before it on its line.
    """
    alone = later if len(later) <= 2 * len(INDENT) else INDENT
    lines: list[str] = []
    line, is_empty = first, True
    for piece in pieces:
        word = piece.removeprefix(_BAR)
        if length(later + piece) > width:
            command = _COMMAND.fullmatch(piece)
            lines += [line.rstrip()] if line.strip() else []
            lines.append(alone + piece if command is None else INDENT + command[1])
            line, is_empty = later, True
        elif is_empty:
            line, is_empty = line + (word if line.strip() else piece), False
        elif length(f"{line} {word}") <= width:
            line = f"{line} {word}"
        else:
            lines.append(line)
            line = later + piece
    return lines if is_empty and not line.strip() else [*lines, line]
