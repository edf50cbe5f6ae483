"""A connection on which a test acts before or after a numbered statement."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import asyncpg

from hookseal.postgres.pool import Connection

COMMIT = 0  # instead of a number: the statement that commits


class End(StrEnum):
    """How an operation is interrupted at one of its statements."""

    CUT = "cut"  # the connection ends before it is sent
    RAISED = "raised"  # an error of hookseal, or a cancellation, before it is sent
    ANSWER_LOST = "answer lost"  # it was executed, and its answer is lost


class Broken(Exception):
    """Raised in the middle of an operation."""


async def _nothing() -> None:
    """Do nothing."""


class Watched(asyncpg.Connection):
    """Counts its statements, and calls the functions given to `watch` before and after the one of that number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch()

    def watch(
        self,
        at: int | None = None,
        before: Callable[[], Awaitable[None]] = _nothing,
        after: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        """Count from 1 again; `COMMIT` means the statement that commits, whatever its number."""
        self.done: list[str] = []
        self.locks = asyncio.Event()  # whether the statement that locks the endpoint's row was sent
        self.was_reached = False  # whether that statement was reached
        self._number = 0
        self._at, self._before, self._after = at, before, after

    def interrupt(self, end: End, at: int) -> None:
        """Interrupt the next operation in that way, at its statement of that number."""

        async def cut() -> None:
            self.terminate()

        async def raised() -> None:
            raise Broken

        async def answer_lost() -> None:
            self.terminate()
            raise ConnectionResetError

        match end:
            case End.CUT:
                self.watch(at, before=cut)
            case End.RAISED:
                self.watch(at, before=raised)
            case End.ANSWER_LOST:
                self.watch(at, after=answer_lost)

    def pause(self, at: int) -> "Pause":
        """Pause the next operation before its statement of that number, until it is resumed."""
        pause = Pause()
        self.watch(at, before=pause.wait_here)
        return pause

    @property
    def has_locked(self) -> bool:
        """Whether the endpoint's row was locked."""
        return any(map(_locks, self.done))

    @property
    def has_committed(self) -> bool:
        """Whether PostgreSQL committed."""
        return any(map(_commits, self.done))

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> str:
        return await self._watched(super().execute, query, *args, **kwargs)  # type: ignore[no-any-return]

    async def fetch(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Fetch rows, watched."""
        return await self._watched(super().fetch, query, *args, **kwargs)

    async def fetchrow(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Fetch a row, watched."""
        return await self._watched(super().fetchrow, query, *args, **kwargs)

    async def fetchval(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Fetch a value, watched."""
        return await self._watched(super().fetchval, query, *args, **kwargs)

    async def _watched(self, run: Callable[..., Awaitable[Any]], query: str, *args: Any, **kwargs: Any) -> Any:
        self._number += 1
        is_there = self._at == self._number or (self._at == COMMIT and _commits(query))
        if is_there:
            self.was_reached = True
            await self._before()
        if _locks(query):
            self.locks.set()
        answer = await run(query, *args, **kwargs)
        self.done.append(query)
        if is_there:
            await self._after()
        return answer


def _commits(query: str) -> bool:
    return query.startswith("COMMIT")


def _locks(query: str) -> bool:
    return "FROM hookseal.endpoints" in query and query.rstrip().endswith("FOR UPDATE")


class Pause:
    """A point at which one task waits until another resumes it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._go = asyncio.Event()

    async def wait_here(self) -> None:
        """Report that the point is reached, and wait."""
        self.reached.set()
        await self._go.wait()

    async def wait_until_reached_or_done(self, task: "asyncio.Task[Any]") -> None:
        """Return once the point is reached, or the task is done without reaching it."""
        stands = asyncio.create_task(self.reached.wait())
        await asyncio.wait({stands, task}, return_when=asyncio.FIRST_COMPLETED)
        stands.cancel()

    def resume(self) -> None:
        """Resume the waiting task."""
        self._go.set()


async def connect(database_url: str, settings: dict[str, str]) -> Watched:
    connection: Watched = await asyncpg.connect(database_url, connection_class=Watched, server_settings=settings)
    return connection


async def released(source: Connection, endpoint: str) -> None:
    """Return once no session locks the endpoint's row: then a session that was cut off has ended."""
    async with source.transaction():
        await source.execute("SELECT FROM hookseal.endpoints WHERE id = $1::text::uuid FOR UPDATE", endpoint)
