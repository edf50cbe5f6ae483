"""Progress of long work, on standard error: a bar on a terminal, else a line every two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from hookseal.cli.shared.output import note, printable
from hookseal.cli.shared.printing import fitting

if TYPE_CHECKING:
    from rich.progress import Progress

_EVERY_SECONDS: Final = 2.0


class Report(Protocol):
    """Called with the number of items that were done since the last call, and a message to print."""

    def __call__(self, more: int, message: str | None = None) -> None:
        """Add `more` to the count, and print the message."""
        ...


@contextmanager
def progress(what: str, total: int | None = None, *, is_quiet: bool = False) -> Iterator[Report]:
    """Give the function that counts items as done, until the block ends; the last count is always printed.

    `total` is None if it is not known how many there are. What `is_quiet` prints without a terminal nothing in the
    first two seconds.
    """
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(what, total=total)

            def drawn(more: int, message: str | None = None) -> None:
                bar.advance(task, more)
                if message is not None:
                    _print_above(bar, message)

            yield drawn
        return
    lines = _Lines(what, total)
    try:
        yield lines
    finally:
        if not is_quiet or lines.has_begun:
            lines.last()


def of_each(report: Report) -> Callable[[str, int], None]:
    """Return what reports by how much the number of a tenant has risen since its last call."""
    before = dict[str, int]()

    def risen(tenant: str, number: int) -> None:
        report(number - before.get(tenant, 0))
        before[tenant] = number

    return risen


@contextmanager
def progress_of_rows(what: str) -> Iterator[tuple[Callable[[str], None], Callable[[int, int | None], None] | None]]:
    """Give `report` and `on_progress` for the change of many rows, until the block ends.

    On a terminal the counts move a bar, below the lines; elsewhere the lines have the counts.
    """
    if not sys.stderr.isatty():
        yield note, None
        return
    with _bar() as bar:
        task = bar.add_task(what, total=None)
        yield (
            lambda line: _print_above(bar, line),
            lambda done, total: bar.update(task, completed=done, total=total),
        )


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

    @property
    def has_begun(self) -> bool:
        """Whether a line was printed."""
        return self._shown > 0

    def last(self) -> None:
        if self._done != self._shown:
            self._show()

    def _show(self) -> None:
        self._shown = self._done
        note(f"{self._what}: {self._done}{'' if self._total is None else f' of {self._total}'}")


def _print_above(bar: "Progress", line: str) -> None:
    """Print a line as `note` does, but above the bar; rich itself would break a command in it."""
    laid_out = "\n".join(fitting(printable(line), sys.stderr))
    bar.console.print(laid_out, markup=False, highlight=False, soft_wrap=True)


def _bar() -> "Progress":
    from rich.console import Console  # noqa: PLC0415 -- only a terminal needs it
    from rich.progress import (  # noqa: PLC0415 -- the same
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=sys.stderr))
