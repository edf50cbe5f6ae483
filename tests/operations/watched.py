"""A connection on which a test decides what happens before and after the statement of a number."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import asyncpg

from hookseal.schema.database import Connection

COMMIT = 0  # in place of a number: the statement that commits


class End(StrEnum):
    """How an operation is broken off at one of its statements."""

    CUT = "cut"  # the connection is gone before it is sent
    RAISED = "raised"  # an error of ours, or a cancellation, before it is sent
    UNHEARD = "unheard"  # it was done, and its answer never comes


class Broken(Exception):
    """What is raised in the middle of an operation."""


async def _nothing() -> None:
    """Let it go on."""


class Watched(asyncpg.Connection):
    """Counts its statements, and calls what `watch` was given before and after the one of that number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch()

    def watch(
        self,
        at: int | None = None,
        before: Callable[[], Awaitable[None]] = _nothing,
        after: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        """Count from 1 again; `COMMIT` is the statement that commits, whatever its number."""
        self.done: list[str] = []
        self.locks = asyncio.Event()  # the statement that locks the endpoint's row is being sent
        self.was_reached = False  # whether that statement was come to
        self._number = 0
        self._at, self._before, self._after = at, before, after

    def break_off(self, end: End, at: int) -> None:
        """Break off what is done next so, at its statement of that number."""

        async def cut() -> None:
            self.terminate()

        async def raised() -> None:
            raise Broken

        async def unheard() -> None:
            self.terminate()
            raise ConnectionResetError

        match end:
            case End.CUT:
                self.watch(at, before=cut)
            case End.RAISED:
                self.watch(at, before=raised)
            case End.UNHEARD:
                self.watch(at, after=unheard)

    def pause(self, at: int) -> "Pause":
        """Have what is done next stand still before its statement of that number, until it is let go."""
        pause = Pause()
        self.watch(at, before=pause.stand)
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
        """Execute, watched."""
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
    """One stands still here until another lets it go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._go = asyncio.Event()

    async def stand(self) -> None:
        """Say that one stands here, and stand."""
        self.reached.set()
        await self._go.wait()

    async def reached_or(self, task: "asyncio.Task[Any]") -> None:
        """Return once one stands here, or the task is done without."""
        stands = asyncio.create_task(self.reached.wait())
        await asyncio.wait({stands, task}, return_when=asyncio.FIRST_COMPLETED)
        stands.cancel()

    def let_go(self) -> None:
        """Let it go on."""
        self._go.set()


async def connect(database_url: str, settings: dict[str, str]) -> Watched:
    """Return a watched connection."""
    connection: Watched = await asyncpg.connect(database_url, connection_class=Watched, server_settings=settings)
    return connection


async def released(source: Connection, endpoint: str) -> None:
    """Return once nobody holds the endpoint's row: then a session that was cut off has ended."""
    async with source.transaction():
        await source.execute("SELECT FROM hookseal.endpoints WHERE id = $1::text::uuid FOR UPDATE", endpoint)
