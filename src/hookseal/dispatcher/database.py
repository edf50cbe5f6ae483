"""The one place where the dispatcher translates what PostgreSQL raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from hookseal.ground.errors import Unavailable
from hookseal.schema.database import NOT_THERE, OUTAGES

# It answered: somebody else had the rows, or the same transaction repeated would do.
_TRY_AGAIN: Final = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what says "PostgreSQL cannot now" into `Unavailable`; let everything else pass, it is a defect."""
    try:
        yield
    except OUTAGES as error:
        if isinstance(error, ValueError):  # asyncpg's word about an argument, which we gave
            raise
        raise Unavailable(f"PostgreSQL {_said(error)} ({type(error).__name__})") from error


def _said(error: Exception) -> str:
    if isinstance(error, _TRY_AGAIN):
        return "cannot do it now: try again"
    return "lacks the tables of hookseal: restore them" if isinstance(error, NOT_THERE) else "does not answer"
