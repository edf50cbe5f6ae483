"""The one place that opens connections to PostgreSQL: statements on them find its own functions and operators only.

A role that may create functions in a schema of the search path can have any statement of ours call them with our
rights, if they fit its arguments better than the built-in that we mean. So no schema but PostgreSQL's own is on it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import asyncpg

SEARCH_PATH: Final = "pg_catalog, pg_temp"

_CONNECT_SECONDS: Final = 60.0
_SETTING: Final = {"search_path": SEARCH_PATH}
_SET: Final = f"SET search_path = {SEARCH_PATH}"
_UNSUPPORTED: Final = (
    "unsupported startup parameter"  # what PgBouncer says of one that it neither passes on nor ignores
)

if TYPE_CHECKING:  # the class is generic in the stubs only
    _Connection = asyncpg.Connection[asyncpg.Record]
    _Pool = asyncpg.Pool[asyncpg.Record]
else:
    _Connection = asyncpg.Connection
    _Pool = asyncpg.Pool


class SearchPathRefused(asyncpg.InterfaceError):
    """A pooler did not pass the search path on, and hands out sessions that have another one."""


class _Kept(_Connection):
    """A connection that a pool gives on as it is: no statement of ours changes its session.

    asyncpg would reset it each time that it is given back, which is a statement for each of ours. A transaction that
    was left open is rolled back still.
    """

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""


async def connect(
    url: str | None = None,
    *,
    application_name: str = "hookseal",
    timeout: float = _CONNECT_SECONDS,  # noqa: ASYNC109 -- asyncpg's own parameter
    command_timeout: float | None = None,
    **address: Any,
) -> _Connection:
    """Open a connection whose search path is `SEARCH_PATH` for as long as it lives.

    `address` is host, port and so on, where there is no url; times are in seconds. Raises `SearchPathRefused`, naming
    what to do, if a pooler in between makes that impossible, and what asyncpg raises.
    """
    address.setdefault("connection_class", _Kept)
    connection = await _opened(
        url, application_name=application_name, timeout=timeout, command_timeout=command_timeout, **address
    )
    try:
        await _require_ours(connection, timeout)
    except BaseException:
        connection.terminate()
        raise
    return connection


def connection_pool(
    url: str,
    *,
    size: int,
    application_name: str = "hookseal",
    timeout: float = _CONNECT_SECONDS,
    command_timeout: float | None = None,
) -> _Pool:
    """Return a pool, to be awaited or entered, of one to `size` connections as `connect` opens them."""
    return _pool(
        url,
        size,
        connect=connect,
        connection_class=_Kept,
        application_name=application_name,
        timeout=timeout,
        command_timeout=command_timeout,
    )


def pool_of_qualified_statements(
    url: str, *, size: int, application_name: str, timeout: float = _CONNECT_SECONDS, command_timeout: float
) -> _Pool:
    """Return such a pool for who sends nothing but statements that are safe under any search path.

    It takes what a pooler gives, and sets nothing in its sessions: the login is an application's, which needs another
    path for itself.
    """
    return _pool(
        url,
        size,
        connect=_opened,
        connection_class=_Kept,
        application_name=application_name,
        timeout=timeout,
        command_timeout=command_timeout,
    )


def _pool(url: str, size: int, **options: Any) -> _Pool:
    made: _Pool = asyncpg.create_pool(url, min_size=1, max_size=size, **options)  # hands on what it does not know
    return made


async def _opened(url: str | None = None, *, application_name: str, **options: Any) -> _Connection:
    """Open a connection that asks for our search path, or, of a pooler that refuses to be asked, for none."""
    name = {"application_name": application_name}
    try:
        return await _connected(url, _SETTING | name, options)
    except asyncpg.ProtocolViolationError as error:
        if _UNSUPPORTED not in str(error):
            raise
    return await _connected(url, name, options)


async def _connected(url: str | None, settings: Mapping[str, str], options: Mapping[str, Any]) -> _Connection:
    return await asyncpg.connect(url, server_settings=dict(settings), **options)


async def _require_ours(connection: _Connection, seconds: float) -> None:
    """Return only if every statement on the connection has our search path. Nothing here depends on another one."""
    if await connection.fetchval("SHOW search_path", timeout=seconds) == SEARCH_PATH:
        return  # it was passed on, or is the default of the role or of the database
    # A pooler that may change the session under us has made up the process id that it gave us.
    if await connection.fetchval("SELECT pg_catalog.pg_backend_pid()", timeout=seconds) == connection.get_server_pid():
        await connection.execute(_SET, timeout=seconds)
        return
    role = str(await connection.fetchval("SHOW session_authorization", timeout=seconds)).replace('"', '""')
    raise SearchPathRefused(
        "a pooler in front of PostgreSQL drops the setting search_path, without which functions of other roles could "
        "be called in place of PostgreSQL's own: connect without it, or run\n"
        f'  ALTER ROLE "{role}" SET search_path = {SEARCH_PATH};\n'
        "(for a login that only hookseal uses) and have the pooler connect anew"
    )
