"""Outcomes on their way into the ledger: what gathers while a statement runs goes with the next one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from hookseal.dispatcher.model import Made, Verdict

MOST_AT_ONCE: Final = 128  # outcomes in one statement
STATEMENTS_AT_ONCE: Final = 2

Outcome = tuple[Made, "asyncio.Future[Verdict | None]"]


class Outcomes:
    """Gathers outcomes and hands them on in batches: a first one at once, later ones as earlier statements end.

    `write` settles the future of each outcome that it is handed: what was done of it, None if its lease was lost.
    It raises nothing.
    """

    def __init__(self, write: Callable[[list[Outcome]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[Outcome] = []
        self._free = STATEMENTS_AT_ONCE
        self._is_due = False
        self._running: set[asyncio.Task[None]] = set()

    def add(self, made: Made) -> "asyncio.Future[Verdict | None]":
        """Take an outcome, and return the future that is settled once it is recorded. Nothing is awaited."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((made, future))
        if self._free and not self._is_due:  # what comes in the same turn of the loop goes together
            self._is_due = True
            loop.call_soon(self._begin)
        return future

    def _begin(self) -> None:
        self._is_due = False
        while self._waiting and self._free:
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            self._free -= 1
            task = asyncio.ensure_future(self._write(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._free += 1
        self._begin()
