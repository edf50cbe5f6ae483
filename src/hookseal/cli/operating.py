"""What every command that changes the installation stands on: a connection, the unlocked secrets, and who does it."""

import getpass
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from hookseal.cli.runtime import connect, require_schema
from hookseal.config.settings import Part, Settings
from hookseal.ground.errors import Refused
from hookseal.operations import sending
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.ref import Provider

NEEDS: Final = frozenset({Part.DATABASE, Part.SECRETS})
_MAX_WHO: Final = 128


@asynccontextmanager
async def operating(settings: Settings, keyring: KeyRing | None = None) -> AsyncIterator[Operator]:
    """Hold one connection with the secrets unlocked, by all keys that are set or by these, for the length of the block.

    Raises `Refused` with the provider `dev`, whose keys are those of one process, `Unavailable`, and
    `ConfigError` if the schema or the keys do not fit.
    """
    if settings.secrets.provider is Provider.DEV:
        raise Refused("the provider dev keeps secrets in the memory of one process: set SECRETS_PROVIDER=db")
    async with connect(settings.database) as connection:
        await require_schema(connection)
        ring = settings.secrets.keyring if keyring is None else keyring
        unlocked = await unlock(connection, settings.secrets.provider, ring, trust=sending.trust(settings.egress))
        yield Operator(connection=connection, unlocked=unlocked, who=who())


def who() -> str:
    """Return who runs this command, as the system knows them: `user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}".encode("utf-8", "backslashreplace").decode()[:_MAX_WHO]
