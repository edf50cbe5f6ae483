"""Reads and runs statements from `.sql` files beside the modules; each statement follows a `-- name:` line.

Arrays of numbers are passed and returned as `text[]`. For any other array each new connection would ask PostgreSQL for
a description of its type, which takes longer than most statements.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pkgutil import get_data, resolve_name
from types import MappingProxyType
from typing import Any, Final

import asyncpg

from hookseal.errors import Defect
from hookseal.postgres import pool
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Executor
from hookseal.postgres.translate import PLAIN, Failures

_NAME: Final = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)
_DESCRIPTION: Final = re.compile(r"\n\n(?:--[^\n]*\n?)+\Z")  # that of the next statement
_FRAGMENT: Final = re.compile(r"\{(?:([a-z_]+)|([a-z_.]+:[A-Z_]+))\}")


def statements(package: str, file: str) -> MappingProxyType[str, str]:
    """Return the statements of a file by the names in their `-- name: NAME` lines.

    `{name}` in a statement is replaced by the fragment of that name in the same file, else in `ground/pointer.sql`, and
    `{module:NAME}` by that text of a module.
    """
    named = _named(package, file)
    fragments = _fragments() | named
    return MappingProxyType({name: _whole(text, fragments) for name, text in named.items()})


@cache
def _fragments() -> dict[str, str]:
    return _named("hookseal.ground", "pointer.sql")


def _whole(text: str, fragments: Mapping[str, str]) -> str:
    whole = _FRAGMENT.sub(lambda match: resolve_name(match[2]) if match[1] is None else fragments[match[1]], text)
    return whole if whole == text else _whole(whole, fragments)


def _named(package: str, file: str) -> dict[str, str]:
    content = get_data(package, file)  # `importlib.resources` would load much more
    if content is None:
        raise Defect(f"{file} of {package} cannot be read from where hookseal is installed")
    parts = _NAME.split(content.decode())
    return {name: _DESCRIPTION.sub("", text).strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return each column as the lines of one text, which is faster than an array. No value may have a line break."""
    return ["\n".join(column) for column in zip(*rows, strict=True)]


class Statements:
    """The statements of one file. Each is run by its name, on a pool or on a connection, in its open transaction.

    Every run ends within `seconds`; None means the time-out of the connection. `failures` translates the errors of
    PostgreSQL, and each method raises the result.
    """

    def __init__(
        self, package: str, file: str, *, failures: Failures = PLAIN, seconds: float | None = ANSWER_SECONDS
    ) -> None:
        self._texts = dict(statements(package, file))
        self._failures = failures
        self._seconds = seconds

    def __getitem__(self, name: str) -> str:
        """Return the text of a statement."""
        return self._texts[name]

    async def rows(self, source: Executor, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run the statement and return its rows."""
        with self._failures.translated():
            async with pool.connected(source) as connection:
                return await connection.fetch(self._texts[name], *arguments, timeout=self._seconds)

    async def row(self, source: Executor, name: str, *arguments: Any) -> asyncpg.Record | None:
        """Run the statement and return its first row, None if there is none."""
        with self._failures.translated():
            async with pool.connected(source) as connection:
                return await connection.fetchrow(self._texts[name], *arguments, timeout=self._seconds)

    async def value(self, source: Executor, name: str, *arguments: Any) -> Any:
        """Run the statement and return the first column of its first row, None if there is no row."""
        with self._failures.translated():
            async with pool.connected(source) as connection:
                return await connection.fetchval(self._texts[name], *arguments, timeout=self._seconds)

    async def execute(self, source: Executor, name: str, *arguments: Any) -> int:
        """Run the statement and return how many rows it wrote or read."""
        with self._failures.translated():
            async with pool.connected(source) as connection:
                status = await connection.execute(self._texts[name], *arguments, timeout=self._seconds)
        number = status.rpartition(" ")[2]
        return int(number) if number.isdecimal() else 0  # LOCK TABLE, for instance, has no number

    def connected(self, source: Executor) -> AbstractAsyncContextManager[Connection]:
        """Yield a connection for a few statements."""
        return self._translated(pool.connected(source))

    def transaction(self, source: Executor) -> AbstractAsyncContextManager[Connection]:
        """Yield a connection in a transaction of its own; in an open transaction of the caller it is a savepoint."""
        return self._translated(pool.transaction(source))

    def one_write(self, source: Executor) -> AbstractAsyncContextManager[Connection]:
        """Yield a connection in the caller's open transaction, else in a transaction of its own."""
        return self._translated(pool.one_write(source))

    @asynccontextmanager
    async def _translated(self, holding: AbstractAsyncContextManager[Connection]) -> AsyncIterator[Connection]:
        with self._failures.translated():
            async with holding as connection:
                yield connection
