"""Work on many rows, a few at the same time, each on its own connection; a row that fails does not stop the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Final, TypeVar

import asyncpg

from hookseal.cli.shared.output import note
from hookseal.cli.shared.printing import option_named
from hookseal.cli.shared.runtime import connect
from hookseal.config.settings import Settings
from hookseal.errors import Defect, HooksealError, InDoubt, Refused, Unavailable, with_advice
from hookseal.operations.operator import Operator
from hookseal.postgres.translate import OUTAGES

LANES: Final = 4
MOST_LISTED: Final = 100  # failures that the answer lists; all are counted, and printed as they come
_MOST_UNAVAILABLE: Final = 10  # rows one after the other that failed in this way: then PostgreSQL is taken to be down
_REPORT_EVERY: Final = 1_000

T = TypeVar("T")


class Tally:
    """Counts the outcomes of the rows and reports them on standard error; `total` is the number of rows, if known.

    `labels` has other words for the outcomes, for a dry run. `field` returns what a failure names.
    """

    def __init__(
        self,
        rows: str,
        *,
        total: int | None = None,
        labels: Mapping[str, str] | None = None,
        field: Callable[[HooksealError], str | None] = option_named,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[dict[str, object]] = []
        self.failures = 0
        self._rows = rows
        self._field = field
        self._labels = labels or {}
        self._total = "" if total is None else f" of {total}"
        self._done = self._unavailable = 0

    async def attempt(self, operator: Operator, place: Mapping[str, object], work: Awaitable[str]) -> str | None:
        """Await the work on the row at that place, and count and return its outcome; a failure is reported: None.

        Raises `Unavailable` if no more rows can be worked on, and `Defect`.
        """
        outcome = None
        try:
            outcome = await work
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
            self.fail(place, Refused(f"PostgreSQL refuses the row ({type(error).__name__})"))
        else:
            self._unavailable = 0
            self.counts[outcome] += 1
        self._count()
        return outcome

    def fail(self, place: Mapping[str, object], error: HooksealError) -> None:
        """Count a failure at that place, and report it."""
        self.failures += 1
        if len(self.failed) < MOST_LISTED:
            self.failed.append(
                {**place, "code": error.code, "message": with_advice(error), "field": self._field(error)}
            )
        named = (f"line {part}" if name == "line" else str(part) for name, part in place.items())
        note(f"{' '.join(named)}: {with_advice(error)}")

    def end(self) -> None:
        """Report the counts after the last row."""
        self._report()

    def _count(self) -> None:
        self._done += 1
        if self._done % _REPORT_EVERY == 0:
            self._report()

    def _report(self) -> None:
        counts = [f"{number} {self._labels.get(outcome, outcome)}" for outcome, number in sorted(self.counts.items())]
        counts += [f"{self.failures} failed"] if self.failures else []
        note(f"{self._done}{self._total} {self._rows}: {', '.join(counts) or 'nothing to do'}")


async def side_by_side(
    settings: Settings,
    operator: Operator,
    items: AsyncGenerator[T, None],
    work: Callable[[Operator, T], Awaitable[object]],
    *,
    lanes: int = LANES,
) -> None:
    """Do the work for every item, a few at the same time, each with the operator on another connection.

    It reads items only as fast as it works on them. The first error rolls back what is under way, and is raised;
    `Unavailable` if PostgreSQL gives no connection.
    """
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue(lanes)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(aclosing(items))
        connections = [await stack.enter_async_context(connect(settings.database)) for _ in range(lanes)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for connection in connections:
                    tasks.create_task(_work_on_queue(operator.on(connection), queue, work))
                async for item in source:
                    await queue.put((item,))
                for _ in connections:
                    await queue.put(None)
        except BaseExceptionGroup as group:
            raise _first_error(group) from None


async def _work_on_queue(
    operator: Operator, queue: "asyncio.Queue[tuple[T] | None]", work: Callable[[Operator, T], Awaitable[object]]
) -> None:
    done = 0
    while (item := await queue.get()) is not None:
        await work(operator, *item)
        done += 1
        if done.bit_count() == 1:  # after 1, 2, 4 ... items: a plan made for a small table scans all of a large one
            await operator.connection.execute("DISCARD PLANS")


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first_error(error) if isinstance(error, BaseExceptionGroup) else error
