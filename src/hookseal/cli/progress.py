"""How far long work has come: a bar on a terminal, else a line now and then, always on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hookseal.cli.output import printable

_EVERY_SECONDS: Final = 2.0


class Tell(Protocol):
    """Is told how many more are done, and what else somebody should read."""

    def __call__(self, more: int, say: str | None = None) -> None:
        """Take note of it."""
        ...


@contextmanager
def progress(what: str, total: int) -> Iterator[Tell]:
    """Give what is to be told how many more of them are done; the last number is always shown."""
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(what, total=total)

            def drawn(more: int, say: str | None = None) -> None:
                bar.advance(task, more)
                if say is not None:
                    bar.console.print(printable(say), markup=False, highlight=False)

            yield drawn
        return
    lines = _Lines(what, total)
    try:
        yield lines
    finally:
        lines.last()


class _Lines:
    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = self._shown = 0
        self._next = time.monotonic() + _EVERY_SECONDS

    def __call__(self, more: int, say: str | None = None) -> None:
        self._done += more
        if say is not None:
            print(f"hookseal: {printable(say)}", file=sys.stderr, flush=True)
        if self._done != self._shown and time.monotonic() >= self._next:
            self._show()
            self._next = time.monotonic() + _EVERY_SECONDS

    def last(self) -> None:
        if self._done != self._shown:
            self._show()

    def _show(self) -> None:
        self._shown = self._done
        print(f"hookseal: {self._what}: {self._done} of {self._total}", file=sys.stderr, flush=True)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=sys.stderr))
