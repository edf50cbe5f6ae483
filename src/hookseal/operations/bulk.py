"""Work on many rows, a few at the same time, each on its own connection; a row that fails does not stop the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Final, TypeVar

import asyncpg

from hookseal.errors import Defect, HooksealError, InDoubt, Refused, Unavailable, with_advice
from hookseal.ground.ids import plural
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.postgres.translate import OUTAGES

LANES: Final = 4
MOST_LISTED: Final = 100  # failures that the result lists; all are counted, and reported as they come
_MOST_UNAVAILABLE: Final = 10  # rows one after the other that failed in this way: then PostgreSQL is taken to be down
_REPORT_EVERY: Final = 1_000

T = TypeVar("T")
Report = Callable[[str], None]  # called with a line for a person: progress, or a failure
OnProgress = Callable[[int, int | None], None]  # called with the rows that are done, and with all if that is known
Further = Callable[[], AbstractAsyncContextManager[Connection]]  # gives one more connection, until the block ends


class Tally:
    """Counts the outcomes of the rows and reports them; `total` is the number of rows, if it is known.

    `row` is the word for one of them. `labels` has other words for the outcomes, for a dry run. `on_progress` is called
    after each row.
    """

    def __init__(
        self,
        row: str,
        report: Report,
        *,
        total: int | None = None,
        labels: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[dict[str, object]] = []
        self.failures = 0
        self._row = row
        self._report_line = report
        self._labels = labels or {}
        self._total = total
        self._on_progress = on_progress
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
            self.failed.append({**place, "code": error.code, "message": with_advice(error), "field": error.field})
        named = (f"line {part}" if name == "line" else str(part) for name, part in place.items())
        self._report_line(f"{' '.join(named)}: {with_advice(error)}")

    def end(self) -> None:
        """Report the counts after the last row."""
        self._report()

    def _count(self) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)
        if self._done % _REPORT_EVERY == 0:
            self._report()

    def _report(self) -> None:
        counts = [f"{number} {self._labels.get(outcome, outcome)}" for outcome, number in sorted(self.counts.items())]
        counts += [f"{self.failures} failed"] if self.failures else []
        rows = plural(self._done if self._total is None else self._total, self._row, f"{self._row}s")
        done = rows if self._total is None else f"{self._done} of {rows}"
        self._report_line(f"{done}: {', '.join(counts) or 'nothing to do'}")


async def side_by_side(
    operator: Operator,
    further: Further,
    items: AsyncGenerator[T, None],
    work: Callable[[Operator, T], Awaitable[object]],
    *,
    lanes: int = LANES,
) -> None:
    """Do the work for every item, a few at the same time, each with the operator on a further connection.

    It reads items only as fast as it works on them. The first error rolls back what is under way, and is raised; so is
    what `further` raises.
    """
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue(lanes)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(aclosing(items))
        connections = [await stack.enter_async_context(further()) for _ in range(lanes)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for connection in connections:
                    tasks.create_task(_work_on_queue(operator, connection, queue, work))
                async for item in source:
                    await queue.put((item,))
                for _ in connections:
                    await queue.put(None)
        except BaseExceptionGroup as group:
            raise _first_error(group) from None


async def _work_on_queue(
    operator: Operator,
    connection: Connection,
    queue: "asyncio.Queue[tuple[T] | None]",
    work: Callable[[Operator, T], Awaitable[object]],
) -> None:
    done = 0
    while (item := await queue.get()) is not None:
        await work(operator.on(connection), *item)
        done += 1
        if done.bit_count() == 1:  # after 1, 2, 4 ... items: a plan made for a small table scans all of a large one
            await connection.execute("DISCARD PLANS")


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first_error(error) if isinstance(error, BaseExceptionGroup) else error
