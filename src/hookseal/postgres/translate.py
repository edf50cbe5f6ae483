"""Translates errors of PostgreSQL, and of the connection to it, to errors of hookseal.

An outage becomes `Unavailable`: the same statement may succeed later. A missing right becomes the error that the
caller's room has for it. Every other error is a defect of hookseal and is not translated. The new error has only the
class of the old one, not its text, because the text may contain a row or credentials.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from hookseal.ground.errors import Conflict, HooksealError, Malformed, Refused, Unavailable

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
# The server answered: the rows were locked, or the transaction must be repeated.
_TRY_AGAIN: Final = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError)
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
            return self.outage(f"{self.place} {_phrase(error)} ({type(error).__name__})")
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
        if isinstance(cause, asyncpg.InterfaceError) and _IN_USE in str(cause):
            raise in_use() from None
        raise


def missing_right(error: BaseException, place: str) -> Refused:
    """Return the error for an operator whose role may not do something, with the roles that may."""
    return Refused(
        f"{place} does not let this role do it ({type(error).__name__}): log in as the owner of the schema, or let "
        "the owner grant this role hookseal_operator (to change), hookseal_worker (to deliver) or hookseal_readonly "
        "(to look); to let a role publish, run `hookseal producer grant --role ROLE --tenant TENANT` as an operator"
    )


PLAIN: Final = Failures()
translated: Final = PLAIN.translated


def _phrase(error: BaseException) -> str:
    if isinstance(error, _TRY_AGAIN):
        return "cannot do it now: try again"
    return "lacks the tables of hookseal: restore them" if isinstance(error, NOT_THERE) else "does not answer"
