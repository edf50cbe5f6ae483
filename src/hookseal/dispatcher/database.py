"""The one place where the dispatcher translates what PostgreSQL raises."""

from collections.abc import Iterator
from contextlib import contextmanager

from hookseal.ground.errors import Unavailable
from hookseal.schema.database import OUTAGES


@contextmanager
def translated() -> Iterator[None]:
    """Turn what says "PostgreSQL cannot now" into `Unavailable`; let everything else pass, it is a defect."""
    try:
        yield
    except OUTAGES as error:
        if isinstance(error, ValueError):  # asyncpg's word about an argument, which we gave
            raise
        raise Unavailable(f"PostgreSQL does not answer ({type(error).__name__})") from error
