"""What keeps a connection to PostgreSQL from being opened, said the same in every process, and what to change.

Never in the words of the server or of the driver: they may hold what logs in.
"""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from hookseal.ground.errors import ConfigError, HooksealError, Unavailable
from hookseal.schema.connect import SearchPathRefused

_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_FILES: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_REFUSED_SETTINGS: Final = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.PostgresSyntaxError,
    asyncpg.ProtocolViolationError,  # so says PgBouncer
)
_SETTING: Final = re.compile(r"parameter:? \"?([A-Za-z_][A-Za-z0-9_.]{0,62})\b")
_WORD: Final = re.compile(r"[A-Z0-9_]{1,64}")


@contextmanager
def opening(*, address: str, variable: str = "DATABASE_URL") -> Iterator[None]:
    """Raise what it means for the operator that a connection cannot be opened in the block.

    `Unavailable`, naming the address, where the server or the way to it is at fault, `ConfigError` where the url or a
    file that it names is. `variable` is what the url was read from.
    """
    try:
        yield
    except _ERRORS as error:
        raise _meaning(error, address=address, variable=variable) from None


def _meaning(error: Exception, *, address: str, variable: str) -> HooksealError:
    place, name = f"PostgreSQL at {address}", type(error).__name__
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
    elif isinstance(error, asyncpg.PostgresError):
        problem = f"takes no connection now ({name}): try again once it does"
    else:
        problem = f"does not answer ({name}): start it or correct {variable}"
    return Unavailable(f"{place} {problem}")


def _of_settings(error: Exception, place: str, *, address: str, variable: str) -> str | None:
    """Return what is wrong with the url, None if it is something else."""
    name = type(error).__name__
    if isinstance(error, SearchPathRefused):
        return f"{place}: {error}"
    if isinstance(error, asyncpg.ClientConfigurationError):
        if "root certificate" in str(error):
            return (
                f"{variable} wants the certificate of the server verified, and names no file of authorities: add "
                "sslrootcert=FILE, or put it where PostgreSQL's own clients look for it (~/.postgresql/root.crt)"
            )
        return f"{variable}, or a variable PG... of libpq, has a parameter that cannot be used"
    # A socket that is not there is a server that is not.
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
    """Return how TLS is refused, by whom, None if it is something else."""
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
