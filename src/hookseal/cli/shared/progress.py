"""Progress of long work, on standard error: a bar on a terminal, else a line every two seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hookseal.cli.shared.output import note, printable

_EVERY_SECONDS: Final = 2.0


class Report(Protocol):
    """Called with the number of items that were done since the last call, and a message to print."""

    def __call__(self, more: int, message: str | None = None) -> None:
        """Add `more` to the count, and print the message."""
        ...


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Report]:
    """Give the function that counts items as done, until the block ends; the last count is always printed.

    `total` is None if it is not known how many there are.
    """
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(what, total=total)

            def drawn(more: int, message: str | None = None) -> None:
                bar.advance(task, more)
                if message is not None:
                    bar.console.print(printable(message), markup=False, highlight=False)

            yield drawn
        return
    lines = _Lines(what, total)
    try:
        yield lines
    finally:
        lines.last()


class _Lines:
    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._done = self._shown = 0
        self._next = time.monotonic() + _EVERY_SECONDS

    def __call__(self, more: int, message: str | None = None) -> None:
        self._done += more
        if message is not None:
            note(message)
        if self._done != self._shown and time.monotonic() >= self._next:
            self._show()
            self._next = time.monotonic() + _EVERY_SECONDS

    def last(self) -> None:
        if self._done != self._shown:
            self._show()

    def _show(self) -> None:
        self._shown = self._done
        note(f"{self._what}: {self._done}{'' if self._total is None else f' of {self._total}'}")


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=sys.stderr))
