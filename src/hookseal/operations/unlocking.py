"""Unlocks the secrets of the installation for somebody who changes it."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from hookseal.config.settings import Secrets, Settings
from hookseal.ground.errors import Refused
from hookseal.operations import sending
from hookseal.postgres.handles import Executor
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.key.stores import Outside
from hookseal.secrets.ref import Provider
from hookseal.secrets.sealing.keyring import KeyRing
from hookseal.secrets.store.external import Apart
from hookseal.secrets.store.providers import Providers


def require_lasting(secrets: Secrets) -> None:
    """Raise `Refused` for the provider `dev`, whose keys and secrets end with the process that made them."""
    if secrets.provider is Provider.DEV:
        raise Refused("the provider dev keeps secrets in the memory of one process: set SECRETS_PROVIDER=db")


@asynccontextmanager
async def outside(settings: Settings, apart: Apart) -> AsyncIterator[Outside]:
    """Give what stores outside PostgreSQL need; all connections to them are closed when the block ends."""
    providers = Providers(settings.secrets.access)
    try:
        yield Outside(providers=providers, apart=apart)
    finally:
        await providers.close()


def unlock_for_changes(
    source: Executor, settings: Settings, keyring: KeyRing | None = None, *, outside: Outside | None = None
) -> Coroutine[Any, Any, Unlocked]:
    """Unlock the secrets, by default with the keyring of the settings; `outside` is for stores outside PostgreSQL.

    Raises `ConfigError` if the keys do not fit the installation, `SecretDenied` if this database role may not read
    secrets, another `SecretError` if those of the installation do not open, and `Unavailable`.
    """
    ring = settings.secrets.keyring if keyring is None else keyring
    return unlock(source, settings.secrets.provider, ring, trust=sending.trust(settings.egress), outside=outside)
