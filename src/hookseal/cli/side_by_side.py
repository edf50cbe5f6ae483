"""Work on many rows, a few side by side: each on a connection of its own, none held up by one that fails."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Final, TypeVar

import asyncpg

from hookseal.cli.output import printable
from hookseal.cli.runtime import connect
from hookseal.config.settings import Settings
from hookseal.ground.errors import Defect, HooksealError, InDoubt, Refused, Unavailable
from hookseal.operations.operator import Operator
from hookseal.schema.database import OUTAGES

LANES: Final = 4
MOST_TOLD: Final = 100  # failures that the answer holds; all are counted, and told as they come
_MOST_UNAVAILABLE: Final = 10  # rows in a row that could not be done now: then nothing can
_TOLD_EVERY: Final = 1_000

T = TypeVar("T")


class Tally:
    """What became of the rows so far, told on standard error; `total` is how many there are, if that is known.

    `said` has other words for what became of them, where nothing was done.
    """

    def __init__(self, rows: str, *, total: int | None = None, said: Mapping[str, str] | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[dict[str, object]] = []
        self.failures = 0
        self._rows = rows
        self._said = said or {}
        self._total = "" if total is None else f" of {total}"
        self._done = self._unavailable = 0

    async def tried(self, operator: Operator, place: Mapping[str, object], doing: Awaitable[str]) -> str | None:
        """Count what was done to the row at that place; a failure is told and counted, and gives None.

        Raises `Unavailable` where no row can be done any more, and `Defect`.
        """
        outcome = None
        try:
            outcome = await doing
        except Defect:
            raise
        except Unavailable as error:
            self._unavailable += 1
            is_over = isinstance(error, InDoubt) or operator.connection.is_closed()
            if is_over or self._unavailable > _MOST_UNAVAILABLE:
                raise
            self.fail(place, error)
        except HooksealError as error:
            self._unavailable = 0
            self.fail(place, error)
        except asyncpg.PostgresError as error:
            if isinstance(error, OUTAGES):
                raise
            self.fail(place, Refused(f"PostgreSQL does not take it ({type(error).__name__})"))
        else:
            self._unavailable = 0
            self.counts[outcome] += 1
        self._one_more()
        return outcome

    def fail(self, place: Mapping[str, object], error: HooksealError) -> None:
        """Count a failure at that place, and tell it."""
        self.failures += 1
        if len(self.failed) < MOST_TOLD:
            self.failed.append({**place, "code": error.code, "message": str(error), "field": error.field})
        named = (f"line {part}" if name == "line" else str(part) for name, part in place.items())
        say(f"{' '.join(named)}: {error}")

    def end(self) -> None:
        """Tell how it ended."""
        self._tell()

    def _one_more(self) -> None:
        self._done += 1
        if self._done % _TOLD_EVERY == 0:
            self._tell()

    def _tell(self) -> None:
        told = [f"{number} {self._said.get(outcome, outcome)}" for outcome, number in sorted(self.counts.items())]
        told += [f"{self.failures} failed"] if self.failures else []
        say(f"{self._done}{self._total} {self._rows}: {', '.join(told) or 'nothing to do'}")


def say(text: str) -> None:
    """Tell a person how it goes."""
    print(f"hookseal: {printable(text)}", file=sys.stderr, flush=True)


async def side_by_side(
    settings: Settings,
    operator: Operator,
    items: AsyncGenerator[T, None],
    work: Callable[[Operator, T], Awaitable[object]],
    *,
    lanes: int = LANES,
) -> None:
    """Do the work for every item, a few at the same time, each with the operator on another connection.

    Only as many items are held as are worked on. The first error ends all, once what is under way was taken back, and
    is raised; `Unavailable` if PostgreSQL gives no connection.
    """
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue(lanes)
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(aclosing(items))
        connections = [await stack.enter_async_context(connect(settings.database)) for _ in range(lanes)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for connection in connections:
                    tasks.create_task(_lane(replace(operator, connection=connection), queue, work))
                async for item in given:
                    await queue.put((item,))
                for _ in connections:
                    await queue.put(None)
        except BaseExceptionGroup as group:
            raise _first(group) from None


async def _lane(
    operator: Operator, queue: "asyncio.Queue[tuple[T] | None]", work: Callable[[Operator, T], Awaitable[object]]
) -> None:
    done = 0
    while (item := await queue.get()) is not None:
        await work(operator, *item)
        done += 1
        if done.bit_count() == 1:  # doubled: a plan that was made for smaller tables reads all of them by now
            await operator.connection.execute("DISCARD PLANS")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
