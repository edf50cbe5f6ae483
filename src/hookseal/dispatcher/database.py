"""The one place where the dispatcher translates what PostgreSQL raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from hookseal.ground.errors import Unavailable
from hookseal.schema.database import OUTAGES

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
        said = "cannot do it now: try again" if isinstance(error, _TRY_AGAIN) else "does not answer"
        raise Unavailable(f"PostgreSQL {said} ({type(error).__name__})") from error
