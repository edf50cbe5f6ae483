"""Connections that are cut before a given statement, as when the process dies there; the tests try each."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import asyncpg

from hookseal.errors import HooksealError
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

T = TypeVar("T")
TABLES = ("endpoints", "secret_records", "secret_rotations", "audit_log", "audit_heads")
_HAS_ENDED = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"


class CutOff(asyncpg.Connection):
    """A connection that is cut before the statement of that number."""

    left: Iterator[int] = iter(())
    _session = 0

    async def end(self, pool: Pool) -> None:
        """Close the connection, and wait until PostgreSQL has ended its session, which may hold locks until then."""
        self.terminate()
        await eventually(lambda: pool.fetchval(_HAS_ENDED, self._session))

    async def _count(self) -> None:
        if next(self.left, None) is None:
            self.terminate()
        else:
            self._session = self.get_server_pid()

    async def execute(self, *args: Any, **kwargs: Any) -> str:
        await self._count()
        return await super().execute(*args, **kwargs)

    async def fetchrow(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch a row, or be cut."""
        await self._count()
        return await super().fetchrow(*args, **kwargs)

    async def fetchval(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch a value, or be cut."""
        await self._count()
        return await super().fetchval(*args, **kwargs)

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch rows, or be cut."""
        await self._count()
        return await super().fetch(*args, **kwargs)


async def content(installation: Installation) -> dict[str, list[dict[str, Any]]]:
    """Return everything that a change of a secret may change."""
    return {
        table: [dict(row) for row in await installation.pool.fetch(f"SELECT * FROM hookseal.{table} ORDER BY 1, 2")]  # noqa: S608 -- our tables
        for table in TABLES
    }


async def require_whole(
    installation: Installation,
    database_url: str,
    change: Callable[[Operator], Awaitable[T]],
    *,
    least: int,
    server_settings: dict[str, str] | None = None,
) -> T:
    """Cut the change before each of its statements, of which there are more than `least`, until one run is whole.

    Fail unless each run before it has changed nothing. Return the answer of the whole one.
    """
    before = await content(installation)
    statements = 0
    while True:
        connection = await asyncpg.connect(database_url, connection_class=CutOff, server_settings=server_settings)
        connection.left = iter(range(statements))
        try:
            answer = await change(installation.operator(connection))
        except (HooksealError, asyncpg.InterfaceError, OSError):
            statements += 1
            assert before == await content(installation), f"cut off before statement {statements}"
        else:
            assert statements > least
            return answer
        finally:
            await connection.end(installation.pool)
