"""Opens all connections to PostgreSQL, with a search path of PostgreSQL's own schemas only.

A role that may create functions in a schema of the search path could make our statements call them with our rights, if
they match the arguments better than the built-in function. So only PostgreSQL's own schemas are on the search path.

A pooler may give each transaction another session. If it does not track prepared statements, the driver's statement
cache is off on its connections.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
from asyncpg.connection import LoggedQuery

from hookseal.postgres.pool import FairPool

# A statement that takes longer may have a plan for smaller tables. On a busy machine all may: plans last for some time.
SLOW_SECONDS: Final = 0.02
PLANS_LAST_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 60.0  # autovacuum checks as often whether to analyse a table


class Plans:
    """The age of the plans of one connection, and how long they last.

    Plans last `PLANS_LAST_SECONDS`. If a statement is slow with new plans as well, the next ones last twice as long, up
    to `LONGEST_SECONDS`: the machine may be slow, or the statement always is, and to plan costs up to 30 ms of CPU.
    """

    __slots__ = ("_is_again", "_last_seconds", "_planned", "_planned_at")

    def __init__(self) -> None:
        self._planned = set[str]()
        self._planned_at = -math.inf
        self._last_seconds = PLANS_LAST_SECONDS
        self._is_again = False  # whether plans were discarded before

    def are_old(self, statement: str, *, took_seconds: float, now: float) -> bool:
        """Return whether to discard the plans after this statement, which has just ended; `now` is in seconds.

        The first use of a statement is never slow, since its time includes the making of its plan. If this returns
        True, the caller discards the plans, and later uses count as first ones.
        """
        if statement not in self._planned:
            self._planned_at = self._planned_at if self._planned else now
            self._planned.add(statement)
            return False
        age = now - self._planned_at
        if took_seconds < SLOW_SECONDS or age < self._last_seconds:
            return False
        are_slow_again = self._is_again and age < 2 * self._last_seconds
        self._last_seconds = min(2 * self._last_seconds, LONGEST_SECONDS) if are_slow_again else PLANS_LAST_SECONDS
        self._is_again = True
        self._planned.clear()
        return True


Url: TypeAlias = str | Callable[[], str] | None
SEARCH_PATH: Final = "pg_catalog, pg_temp"

_CONNECT_SECONDS: Final = 60.0
_MOST_STATEMENTS: Final = 1_000_000  # of a connection; with asyncpg's 50,000 a busy worker connects every few minutes
_SETTING: Final = {"search_path": SEARCH_PATH}
_SET: Final = f"SET search_path = {SEARCH_PATH}"
# Up to PostgreSQL 17 a plan that must read a whole table then looks so expensive that it would be compiled at each use.
_PLAN_ONCE: Final = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
_UNSUPPORTED: Final = (
    "unsupported startup parameter"  # PgBouncer's message for a parameter that it neither passes on nor ignores
)
_BY_STATEMENT: Final = "statement pooling mode"  # in PgBouncer's message if it allows no transactions
# A claim must see what was committed before it, also while it waits: with another isolation it would fail instead.
_ISOLATION: Final = "read committed"
_SET_ISOLATION: Final = f"SET default_transaction_isolation = '{_ISOLATION}'"
_PROBE: Final = "hookseal_probe"
# Nothing in these two depends on the search path.
_SESSION: Final = (
    "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('search_path'), "
    "pg_catalog.current_setting('default_transaction_isolation')"
)
_HAS_PROBE: Final = (
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE name OPERATOR(pg_catalog.=) 'hookseal_probe')"
)

if TYPE_CHECKING:  # the class is generic in the stubs only
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection


class PoolerRefused(asyncpg.InterfaceError):
    """A pooler prevents the connection from working. The text says how to configure it."""


class SearchPathRefused(PoolerRefused):
    """A pooler dropped the search path, and its sessions have another one."""


class IsolationRefused(PoolerRefused):
    """The sessions of a pooler begin their transactions with another isolation than READ COMMITTED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """The session of a connection: whether it is the server's own and no pooler's, its search path and isolation."""

    is_ours_alone: bool
    search_path: str
    isolation: str


class _OurConnection(_Connection):
    """A connection that a pool does not reset at release, because no statement of ours changes its session.

    The reset of asyncpg would cost a statement for each statement of ours. An open transaction is still rolled back.
    After a slow statement the connection discards its plans if they may be old (`Plans`).
    """

    __slots__ = ("_discards", "_plans")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._discards = False
        self._plans = Plans()
        self.add_query_logger(self._judge)

    def get_reset_query(self) -> str:
        return ""

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- asyncpg's own parameter
        """Roll back what is open, and discard the plans if they may be old.

        What ran on the connection has ended: if its plans cannot be discarded, it is closed, and nothing is raised.
        The pool then opens another connection.
        """
        await super().reset(timeout=timeout)
        if not self._discards:
            return
        self._discards = False
        try:
            await self.execute("DISCARD PLANS", timeout=timeout)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self.terminate()

    def _judge(self, query: LoggedQuery) -> None:
        now = asyncio.get_running_loop().time()
        if self._plans.are_old(query.query, took_seconds=query.elapsed, now=now):
            self._discards = True


async def has_session_of_its_own(connection: _Connection, *, seconds: float) -> bool:
    """Return whether the connection has one session of the server for itself, so that a LISTEN on it works.

    It is False behind a pooler that invents the process id, as PgBouncer does in every mode.
    """
    return (await _session(connection, seconds)).is_ours_alone


async def connect(
    url: Url = None,
    *,
    application_name: str = "hookseal",
    timeout: float = _CONNECT_SECONDS,  # noqa: ASYNC109 -- asyncpg's own parameter
    command_timeout: float | None = None,
    plans_once: bool = False,
    **address: Any,
) -> _Connection:
    """Open a connection whose search path is always `SEARCH_PATH`.

    `plans_once` suits statements that run often and find their rows by an index: PostgreSQL then makes one plan for
    each, for any arguments, at its first use. By default it makes a plan for the arguments of each of the first five
    uses, and maybe of all: this takes one to two milliseconds for a long statement, and up to ten on a new connection.
    These plans use an index wherever there is one: else one that was made for a small table would read all of it after
    it has grown. Behind a pooler the default remains, since the session belongs to the pooler.

    `url` may be a function, which is asked for each connection. `address` is host, port and so on, without a url; times
    are in seconds. Raises `PoolerRefused`, which says what to
    do, if a pooler makes that impossible, and what asyncpg raises.
    """
    address.setdefault("connection_class", _OurConnection)
    if plans_once:
        address["max_cached_statement_lifetime"] = 0  # the default prepares, and plans, each again every five minutes
    connection, session = await _open(
        url, application_name=application_name, timeout=timeout, command_timeout=command_timeout, **address
    )
    try:
        await _require_ours(connection, session, timeout)
        if plans_once and session.is_ours_alone:
            await connection.execute(_PLAN_ONCE, timeout=timeout)
    except BaseException:
        connection.terminate()
        raise
    return connection


def connection_pool(
    url: Url,
    *,
    size: int,
    application_name: str = "hookseal",
    timeout: float = _CONNECT_SECONDS,
    command_timeout: float | None = None,
    plans_once: bool = False,
) -> FairPool:
    """Return a pool of one to `size` connections of `connect`. The caller must await or enter it."""
    return _pool(
        url,
        size,
        connect=partial(connect, plans_once=plans_once),
        connection_class=_OurConnection,
        application_name=application_name,
        timeout=timeout,
        command_timeout=command_timeout,
    )


def pool_of_qualified_statements(
    url: Url, *, size: int, application_name: str, timeout: float = _CONNECT_SECONDS, command_timeout: float
) -> FairPool:
    """Return a pool for a caller whose statements are all safe under any search path.

    It sets nothing in the sessions of a pooler: the login belongs to an application, which needs its own search path.
    """
    return _pool(
        url,
        size,
        connect=_with_any_path,
        connection_class=_OurConnection,
        application_name=application_name,
        timeout=timeout,
        command_timeout=command_timeout,
    )


def _pool(url: Url, size: int, *, connect: Callable[..., Awaitable[_Connection]], **options: Any) -> FairPool:
    async def connect_now(*_no_url: Any, **more: Any) -> _Connection:
        return await connect(url, **more)

    # It passes other options on.
    return FairPool(connect=connect_now, min_size=1, max_size=size, max_queries=_MOST_STATEMENTS, **options)


async def _with_any_path(url: Url = None, **options: Any) -> _Connection:
    connection, session = await _open(url, **options)
    if session.is_ours_alone and session.isolation != _ISOLATION:
        try:
            await connection.execute(_SET_ISOLATION, timeout=options["timeout"])
        except BaseException:
            connection.terminate()
            raise
    return connection


async def _open(url: Url = None, *, timeout: float, **options: Any) -> tuple[_Connection, _Session]:  # noqa: ASYNC109 -- asyncpg's own parameter
    """Open a connection, without the statement cache if a pooler does not track prepared statements."""
    connection = await _ask(url, timeout=timeout, **options)
    try:
        session = await _session(connection, timeout)
        if session.is_ours_alone or await _tracks_statements(connection, timeout):
            return connection, session
        await connection.close(timeout=timeout)
    except BaseException:
        connection.terminate()
        raise
    return await _ask(url, timeout=timeout, statement_cache_size=0, **options), session


async def _ask(url: Url = None, *, application_name: str, **options: Any) -> _Connection:
    """Open a connection with our search path, or without one if a pooler refuses the parameter."""
    name = {"application_name": application_name}
    try:
        return await _connected(url, _SETTING | name, options)
    except asyncpg.ProtocolViolationError as error:
        if _UNSUPPORTED not in str(error):
            raise
    return await _connected(url, name, options)


async def _connected(url: Url, settings: Mapping[str, str], options: Mapping[str, Any]) -> _Connection:
    return await asyncpg.connect(url() if callable(url) else url, server_settings=dict(settings), **options)


async def _session(connection: _Connection, seconds: float) -> _Session:
    # Without a name: a pooler might leave a named statement in a session that another client gets.
    asked = await connection.prepare(_SESSION, name="", timeout=seconds)
    process, path, isolation = await asked.fetchrow(timeout=seconds) or (0, "", "")
    return _Session(is_ours_alone=process == connection.get_server_pid(), search_path=path, isolation=isolation)


async def _tracks_statements(connection: _Connection, seconds: float) -> bool:
    """Return whether the pooler prepares a named statement in every session where it is used.

    A pooler that does (PgBouncer 1.21 or newer, with `max_prepared_statements`) uses other names in the sessions.
    """
    try:
        await connection.execute("BEGIN", timeout=seconds)
    except asyncpg.PostgresConnectionError as error:
        if _BY_STATEMENT in str(error):
            raise PoolerRefused(
                "a pooler in front of PostgreSQL gives each statement another session, so that there are no "
                "transactions: connect without it, or set pool_mode = transaction in its configuration"
            ) from None
        raise
    try:
        asked = await connection.prepare(_HAS_PROBE, name=_PROBE, timeout=seconds)
        is_passed_on = bool(await asked.fetchval(timeout=seconds))
        if is_passed_on:
            await connection.execute("DEALLOCATE hookseal_probe", timeout=seconds)
    except asyncpg.DuplicatePreparedStatementError:  # another client was interrupted in this function and left it
        is_passed_on = True
    await connection.execute("ROLLBACK", timeout=seconds)
    return not is_passed_on


async def _require_ours(connection: _Connection, session: _Session, seconds: float) -> None:
    """Make sure that every statement has our search path and isolation, or raise `PoolerRefused`.

    It is safe under any search path. What a pooler passed on stays, and so does the right default of the role or the
    database. Behind a pooler nothing is set: it may switch the session, and the setting would be lost.
    """
    wrong = {
        _SET: session.search_path != SEARCH_PATH,
        _SET_ISOLATION: session.isolation != _ISOLATION,
    }
    missing = [statement for statement, is_wrong in wrong.items() if is_wrong]
    if session.is_ours_alone or not missing:
        for statement in missing:
            await connection.execute(statement, timeout=seconds)
        return
    asked = await connection.prepare("SHOW session_authorization", name="", timeout=seconds)
    role = str(await asked.fetchval(timeout=seconds)).replace('"', '""')
    advice = (
        "connect without it, or run\n"
        f'  ALTER ROLE "{role}" {missing[0]};\n'
        "(for a login that only hookseal uses) and have the pooler reconnect"
    )
    if _SET in missing:
        raise SearchPathRefused(
            "a pooler in front of PostgreSQL drops the setting search_path, without which functions of other roles "
            f"could be called in place of PostgreSQL's own: {advice}"
        )
    raise IsolationRefused(
        f"the sessions of a pooler in front of PostgreSQL begin their transactions as {session.isolation}, in which "
        f"statements of hookseal fail beside others; it needs {_ISOLATION}: {advice}"
    )
