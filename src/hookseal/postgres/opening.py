"""Opens connections to the PostgreSQL of the settings, with the same error messages everywhere.

The messages never repeat the text of the server or the driver, because it may contain credentials.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg

from hookseal.errors import Cause, ConfigError, HooksealError, Unavailable
from hookseal.postgres.connect import PoolerRefused, connect, connection_pool
from hookseal.postgres.pool import Pool
from hookseal.postgres.translate import OUTAGES, answer_of

if TYPE_CHECKING:  # the class is generic in the stubs only
    _Own = asyncpg.Connection[asyncpg.Record]
else:
    _Own = asyncpg.Connection

_COMMAND_SECONDS: Final = 3.0  # with the start of Python, a command must have ended within five
_CLOSE_SECONDS: Final = 1.0
_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_FILES: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_REFUSED_SETTINGS: Final = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.PostgresSyntaxError,
    asyncpg.ProtocolViolationError,  # from PgBouncer
)
_SETTING: Final = re.compile(r"parameter(?: in options)?:? \"?([A-Za-z_][A-Za-z0-9_.]{0,62})\b")
_WORD: Final = re.compile(r"[A-Z0-9_]{1,64}")


class Server(Protocol):
    """A PostgreSQL of the settings: `address` is for messages, `variable` is the setting that contains the url.

    `current_url` returns the url for the next connection.
    """

    def current_url(self) -> str: ...  # noqa: D102
    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def variable(self) -> str: ...  # noqa: D102
    @property
    def application_name(self) -> str | None: ...  # noqa: D102


async def opened(server: Server, *, name: str, seconds: float, command_timeout: float | None = None) -> _Own:
    """Return a connection. Its application name is that of the settings, or `name` without one.

    Raises what `opening` raises, and `Unavailable` if it is not open after `seconds`.
    """
    with opening(address=server.address, variable=server.variable):
        async with asyncio.timeout(seconds):
            return await connect(
                server.current_url, application_name=server.application_name or name, command_timeout=command_timeout
            )


@asynccontextmanager
async def connection(server: Server) -> AsyncIterator[_Own]:
    """Give one connection to a command, which is closed at the end of the block.

    Raises what `opening` raises, within five seconds if the server does not answer.
    """
    opened_connection = await opened(server, name="hookseal", seconds=_COMMAND_SECONDS)
    try:
        yield opened_connection
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await opened_connection.close(timeout=_CLOSE_SECONDS)
    finally:
        opened_connection.terminate()


@asynccontextmanager
async def pool(
    server: Server,
    *,
    size: int,
    name: str,
    seconds: float,
    close_seconds: float,
    make: Callable[..., Pool] = connection_pool,
) -> AsyncIterator[Pool]:
    """Yield a pool of one to `size` connections. A statement may take `seconds`.

    After the block every connection is closed, by force after `close_seconds` if PostgreSQL does not answer. Raises
    what `opening` raises, and `Unavailable` if the first connection is not open after `seconds`.
    """
    with opening(address=server.address, variable=server.variable):
        async with asyncio.timeout(seconds):
            opened_pool = await make(
                server.current_url,
                size=size,
                application_name=server.application_name or name,
                timeout=seconds,
                command_timeout=seconds,
            )
    try:
        yield opened_pool
    finally:
        await _close(opened_pool, close_seconds)


async def _close(pool: Pool, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await pool.close()
    except OUTAGES:
        pool.terminate()


@contextmanager
def opening(*, address: str, variable: str = "DATABASE_URL") -> Iterator[None]:
    """Replace the error of a connection that does not open in the block by one for the operator.

    It is `Unavailable`, with the address, if the cause is the server or the network, and `ConfigError` if it is the url
    or a file that the url names. `variable` is the setting that contains the url.
    """
    try:
        yield
    except _ERRORS as error:
        raise _meaning(error, address=address, variable=variable) from None


def _meaning(error: Exception, *, address: str, variable: str) -> HooksealError:
    place, name = f"PostgreSQL at {address}", type(error).__name__
    error = _as_of_postgres(error)
    of_settings = _of_settings(error, place, address=address, variable=variable)
    if of_settings is not None:
        return ConfigError(of_settings)
    of_tls = _of_tls(error, place, variable)
    if of_tls is not None:
        return Unavailable(of_tls)
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        problem = f"refuses the user or the password ({name}): correct {variable}"
    elif isinstance(error, asyncpg.InvalidCatalogNameError):
        problem = f"has no such database ({name}): create it or correct {variable}"
    elif isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        problem = f"has no server that is as target_session_attrs asks: wait for one, or correct {variable}"
    elif isinstance(error, asyncpg.PostgresError) and answer_of(error)[1] is not Cause.SILENT:
        return Unavailable(f"{place} {answer_of(error)[0]} ({name})", cause=answer_of(error)[1])
    elif isinstance(error, asyncpg.PostgresError):
        problem = f"takes no connection now ({name}): try again once it does"
    else:
        problem = f"does not answer ({name}): start it or correct {variable}"
    return Unavailable(f"{place} {problem}")


def _as_of_postgres(error: Exception) -> Exception:
    """Return the error that PostgreSQL would raise. PgBouncer has one code for all errors, so their text decides."""
    text = str(error)
    if not isinstance(error, asyncpg.ProtocolViolationError) or "unsupported startup parameter" in text:
        return error
    if "authentication failed" in text or "no such user" in text:
        return asyncpg.InvalidAuthorizationSpecificationError(text)
    if "no such database" in text:
        return asyncpg.InvalidCatalogNameError(text)
    return asyncpg.TooManyConnectionsError(text)


def _of_settings(error: Exception, place: str, *, address: str, variable: str) -> str | None:
    """Return a message if the url or the settings of the connection are wrong, else None."""
    name = type(error).__name__
    if isinstance(error, PoolerRefused):
        return f"{place}: {error}"
    if isinstance(error, asyncpg.ClientConfigurationError):
        if "root certificate" in str(error):
            return (
                f"{variable} asks to verify the certificate of the server, and names no file of authorities: add "
                "sslrootcert=FILE, or put it where PostgreSQL's own clients look for it (~/.postgresql/root.crt)"
            )
        return f"{variable}, or a variable PG... of libpq, has a parameter that cannot be used"
    # With a Unix socket, a missing file means that the server does not run.
    if isinstance(error, _FILES) and not address.startswith("the "):
        return (
            f"a file for TLS cannot be read ({name}): correct sslrootcert, sslcrl, sslcert or sslkey in {variable}, or "
            "the variable PGSSL... that names it"
        )
    if isinstance(error, _REFUSED_SETTINGS):
        setting = _SETTING.search(str(error))
        named = f"the setting {setting[1]}" if setting else "a setting"
        return f"{place} refuses {named} of the connection ({name}): correct or remove it in {variable}"
    return None


def _of_tls(error: Exception, place: str, variable: str) -> str | None:
    """Return a message if TLS failed, else None."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".").replace("\n", " ")
        return (
            f"the certificate of {place} is not trusted ({said}): name the file of its authority with sslrootcert, or "
            f"the host that it is for, in {variable}"
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason if error.reason and _WORD.fullmatch(error.reason) else type(error).__name__
        return (
            f"TLS with {place} fails ({reason}): correct sslmode, sslcert or ssl_min_protocol_version in {variable}, "
            "or the server's side of it"
        )
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return (
            f"{place} offers no TLS, and {variable} asks for it (sslmode): turn it on there, or set sslmode=prefer if "
            "nobody can listen on the way"
        )
    is_refused_both_ways = isinstance(error.__cause__, asyncpg.InvalidAuthorizationSpecificationError)
    if (
        isinstance(error, asyncpg.InvalidAuthorizationSpecificationError)
        and "no encryption" in str(error)
        and not is_refused_both_ways
    ):
        return f"{place} takes this user with TLS only: set sslmode=verify-full, or require, in {variable}"
    return None
