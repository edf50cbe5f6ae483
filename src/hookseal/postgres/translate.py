"""Translates errors of PostgreSQL, and of the connection to it, to errors of hookseal.

An outage becomes `Unavailable`: the same statement may succeed later. If PostgreSQL answered, the message says what is
short and who must act, and only a connection that is lost, or a time without an answer, is a PostgreSQL that "does not
answer". A missing right becomes the error that the
caller's room has for it. Every other error is a defect of hookseal and is not translated. The new error has only the
class of the old one, not its text, because the text may contain a row or credentials.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import asyncpg

from hookseal.errors import Cause, Conflict, HooksealError, Malformed, Refused, Unavailable

# The database is missing or incomplete, because it is being restored. A wrong name in a statement is not the cause: the
# schema revision was compared at start.
NOT_THERE: Final = (
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
)
# Errors of the server or the network that may go away; the same statement may succeed later.
OUTAGES: Final = (
    OSError,  # TimeoutError is one
    asyncpg.InterfaceError,  # a closed connection or pool
    asyncpg.InternalClientError,  # the server closed the connection during an answer
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # no connection left, disk full
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,  # deadlock or serialization failure
    asyncpg.LockNotAvailableError,  # another transaction holds the lock for longer than `lock_timeout`
    asyncpg.ReadOnlySQLTransactionError,  # a standby answers, in a failover
    asyncpg.InvalidAuthorizationSpecificationError,
    *NOT_THERE,
)
_CONNECTIONS: Final = (
    "has no connection left for this login: its administrator must raise max_connections, or the limit of the role or "
    "the database (CONNECTION LIMIT), or run fewer processes; behind a pooler, its limits"
)
_COMING: Final = "is starting up or recovering, and takes no connection yet: wait"
_GOING: Final = "is shutting down, or its administrator ended this connection: wait until it is back"
# What a server that answers says, and who must act. The first class that matches decides.
_ANSWERS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, Cause], ...]] = (
    (NOT_THERE, "lacks the tables of hookseal: restore them", Cause.FAILING),
    (asyncpg.DiskFullError, "has no room left on its disk: its administrator must make room", Cause.FAILING),
    (
        asyncpg.OutOfMemoryError,
        "is out of memory: its administrator must give it more, or lower what it may take (work_mem, max_connections)",
        Cause.FAILING,
    ),
    (asyncpg.TooManyConnectionsError, _CONNECTIONS, Cause.THROTTLED),
    (
        asyncpg.InsufficientResourcesError,
        "has reached one of its limits: its administrator finds which in its log",
        Cause.THROTTLED,
    ),
    (
        asyncpg.ReadOnlySQLTransactionError,
        (
            "accepts no writes, because it is a standby or is set to read only: wait for the failover, or let its "
            "administrator correct default_transaction_read_only or the address"
        ),
        Cause.FAILING,
    ),
    (
        asyncpg.LockNotAvailableError,
        (
            "cannot do it now: try again; another transaction holds a lock longer than lock_timeout (its administrator "
            "finds it in pg_stat_activity)"
        ),
        Cause.FAILING,
    ),
    (asyncpg.TransactionRollbackError, "cannot do it now: try again", Cause.FAILING),
    (
        asyncpg.QueryCanceledError,
        (
            "cancelled the statement, after statement_timeout or by hand: its administrator must find what slows it "
            "down (pg_stat_activity), or raise that limit for this role"
        ),
        Cause.FAILING,
    ),
    (asyncpg.CannotConnectNowError, _COMING, Cause.FAILING),
    (asyncpg.CrashShutdownError, "has crashed and restarts: wait, and look into its log", Cause.FAILING),
    (
        asyncpg.IdleSessionTimeoutError,
        "ended an idle connection (idle_session_timeout): its administrator must set this to 0 for this role",
        Cause.FAILING,
    ),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        (
            "refuses the login of this process: correct user and password in its url, or let its administrator correct "
            "the role or pg_hba.conf"
        ),
        Cause.FAILING,
    ),
    (asyncpg.OperatorInterventionError, _GOING, Cause.FAILING),
    (
        asyncpg.PostgresSystemError,
        "cannot read or write its own files: its administrator must look at its log and its disk",
        Cause.FAILING,
    ),
)
_IN_USE: Final = "another operation is in progress"  # in asyncpg's message


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """How one room translates errors of PostgreSQL: `place` is its name in messages, `outage` the error for an outage.

    Without `denied` a missing right is not translated.
    """

    place: str = "PostgreSQL"
    outage: type[Unavailable] = Unavailable
    denied: Callable[[], HooksealError] | None = None

    def meaning(self, error: BaseException) -> HooksealError | None:
        """Return the translated error, None if the error is a defect of hookseal."""
        if isinstance(error, OUTAGES) and not isinstance(
            error, ValueError
        ):  # asyncpg raises an InterfaceError that is a ValueError for a wrong argument
            said, cause = answer_of(error)
            return self.outage(f"{self.place} {said} ({type(error).__name__})", cause=cause)
        if isinstance(error, asyncpg.InsufficientPrivilegeError) and self.denied is not None:
            return self.denied()
        return None

    def translated(self) -> "Translation":
        """Translate an error of the block; a defect of hookseal is not translated."""
        return Translation(self)


class Translation:  # a generator takes twice the time, and each statement is in such a block
    """A block whose errors are translated."""

    __slots__ = ("_failures",)

    def __init__(self, failures: Failures) -> None:
        self._failures = failures

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None and (meaning := self._failures.meaning(error)) is not None:
            raise meaning from None


def in_use() -> Conflict:
    """Return the error for a connection of the caller on which something runs already."""
    return Conflict("the connection is in use: use it for one call at a time", field="connection")


@contextmanager
def of_the_caller() -> Iterator[None]:
    """Replace an error that only the caller can end, in a block that uses the caller's connection and transaction.

    On a connection of ours they are outages: a standby answers, or a statement was interrupted. On the caller's the
    same call would fail again and again. It may be translated already; then the original is its context.
    """
    try:
        yield
    except Exception as error:
        cause = error.__context__ if isinstance(error, Unavailable) else error
        if isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
            raise Malformed(
                "the transaction is read-only: begin one that may write, or leave the connection out",
                field="connection",
            ) from None
        require_not_in_use(cause)
        raise


def require_not_in_use(cause: BaseException | None) -> None:
    """Raise `Conflict` if this error of asyncpg says that another call uses the connection."""
    if isinstance(cause, asyncpg.InterfaceError) and _IN_USE in str(cause):
        raise in_use() from None


def missing_right(error: BaseException, place: str) -> Refused:
    """Return the error for an operator whose role may not do something, with the roles that may."""
    return Refused(
        f"{place} does not let this role do it ({type(error).__name__}): log in as the owner of the schema, or let "
        "the owner grant this role hookseal_operator (to change), hookseal_worker (to deliver), hookseal_api (to serve "
        "the HTTP API; with hookseal_reveal it also opens secrets), hookseal_api_publisher (the same without a key) or "
        "hookseal_readonly (to look)",
        advice="to let a role publish, run `hookseal producer grant --role ROLE --tenant TENANT` as an operator",
        joint="; ",
    )


def for_operator(error: Exception, *, address: str | None = None) -> HooksealError | None:
    """Return the error of a library in a command as an error for its operator; None if it is a fault of hookseal."""
    postgres = f"PostgreSQL at {address}" if address else "PostgreSQL"
    if not isinstance(error, OSError):
        return Failures(place=postgres, denied=partial(missing_right, error, postgres)).meaning(error)
    if isinstance(error, ConnectionError | TimeoutError):  # other OSErrors may concern a file
        place = postgres if address else "a server"
        return Unavailable(f"{place} does not answer ({type(error).__name__}): try again")
    return None


def is_locked(error: Unavailable) -> bool:
    """Return whether only the lock of another transaction is the cause: PostgreSQL has answered."""
    return isinstance(error.__context__, asyncpg.LockNotAvailableError)


PLAIN: Final = Failures()
translated: Final = PLAIN.translated


def answer_of(error: BaseException) -> tuple[str, Cause]:
    """Return what an outage means, as the end of a sentence about PostgreSQL, and its cause."""
    error = _as_of_postgres(error)
    if isinstance(error, asyncpg.CannotConnectNowError) and "shutting down" in str(error):
        return _GOING, Cause.FAILING
    for kind, said, cause in _ANSWERS:
        if isinstance(error, kind):
            return said, cause
    return "does not answer", Cause.SILENT


def _as_of_postgres(error: BaseException) -> BaseException:
    """Return the error that PostgreSQL would raise. PgBouncer has one code: the text decides."""
    texts = ("no more connections allowed", "query_wait_timeout")
    if isinstance(error, asyncpg.ProtocolViolationError) and any(text in str(error) for text in texts):
        return asyncpg.TooManyConnectionsError()
    return error
