"""Groups items into batches: items that arrive while a batch runs go into the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from hookseal.errors import Unavailable

MAX_ITEMS: Final = 128  # in one batch
MAX_RUNNING: Final = 2
SECOND_BATCH_ITEMS: Final = 32  # with so many waiting, a second batch starts while one runs

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")
Batch: TypeAlias = list[tuple[_Item, asyncio.Future[_Answer]]]


class Uncancellable(asyncio.Future[_Answer]):
    """A future that no cancellation ends.

    A task that awaits it and is cancelled continues once the future is resolved; the cancellation is raised then.
    """

    def cancel(self, msg: object = None) -> bool:
        """Do nothing."""
        del msg
        return False


class Batches(Generic[_Item, _Answer]):
    """Passes items to `work` in batches: the first item at once, later ones when an earlier batch ends.

    No timer is used. While each turn of the event loop adds items, a batch waits for the next turn, until it has many
    items. While a batch runs, a second one starts only if it has many items. So a burst makes few batches.

    `work` resolves the future of each item, perhaps after its end. If it raises an error, the futures that are left
    raise it. If its task is cancelled, they raise `Unavailable`. If the caller of an item was cancelled meanwhile, the
    item's future is cancelled, and `resolve` does nothing. `future` may make another kind of future.
    """

    def __init__(
        self,
        work: Callable[[Batch[_Item, _Answer]], Awaitable[None]],
        future: Callable[[], asyncio.Future[_Answer]] | None = None,
    ) -> None:
        self._work = work
        self._future = future or asyncio.Future
        self._waiting: Batch[_Item, _Answer] = []
        self._free = MAX_RUNNING
        self._is_due = False
        self._running: set[asyncio.Future[None]] = set()

    def add(self, item: _Item) -> asyncio.Future[_Answer]:
        """Add an item, and return the future that is resolved once its batch has run. Awaits nothing."""
        future = self._future()
        self._waiting.append((item, future))
        self._look_soon()
        return future

    def _look_soon(self) -> None:
        if self._free and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._look, len(self._waiting))

    def _look(self, before: int) -> None:
        """Begin a batch, unless items were added since: then those of the next turn of the event loop join it."""
        self._is_due = False
        if before < len(self._waiting) < SECOND_BATCH_ITEMS:
            self._look_soon()
        else:
            self._begin()

    def _begin(self) -> None:
        while self._free and len(self._waiting) >= (SECOND_BATCH_ITEMS if self._running else 1):
            batch, self._waiting = self._waiting[:MAX_ITEMS], self._waiting[MAX_ITEMS:]
            self._free -= 1
            task = asyncio.ensure_future(self._work(batch))
            self._running.add(task)
            # No `partial`: in its debug mode asyncio logs the arguments of one, and an item may be a token.
            task.add_done_callback(self._end_of(batch))

    def _end_of(self, batch: Batch[_Item, _Answer]) -> "Callable[[asyncio.Future[None]], None]":
        return lambda task: self._ended(batch, task)

    def _ended(self, batch: Batch[_Item, _Answer], task: "asyncio.Future[None]") -> None:
        self._running.discard(task)
        resolve_left(task, batch)
        self._free += 1
        if self._waiting:
            self._look_soon()


def resolve(future: asyncio.Future[_Answer], answer: _Answer | Exception) -> None:
    """Set the result or the exception of the future, unless it is done or cancelled."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def resolve_left(task: "asyncio.Future[None]", batch: Iterable[tuple[object, asyncio.Future[_Answer]]]) -> None:
    """If the task has raised an error, let the futures that are left raise it.

    If the task was cancelled, as when the process ends, they raise `Unavailable`.
    """
    unresolved = [future for _, future in batch if not future.done()]
    if not unresolved:  # the error is not retrieved here, so that asyncio reports it
        return
    error = Unavailable("the process ends") if task.cancelled() else task.exception()
    if error is not None:
        for each in unresolved:
            each.set_exception(error)
