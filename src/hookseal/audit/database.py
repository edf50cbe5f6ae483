"""The one place where the audit room translates what PostgreSQL raises."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from hookseal.ground.errors import Refused, Unavailable
from hookseal.schema.database import OUTAGES


@contextmanager
def translated() -> Iterator[None]:
    """Turn an outage into `Unavailable` and a missing right into `Refused`; the rest passes, it is a defect."""
    try:
        yield
    except OUTAGES as error:
        if isinstance(error, ValueError):  # asyncpg's word about an argument, which we gave
            raise
        raise Unavailable(f"the audit log in PostgreSQL does not answer ({type(error).__name__})") from error
    except asyncpg.InsufficientPrivilegeError:
        raise Refused("this SQL role has no right to the audit log: grant it hookseal_operator") from None
