"""Unlocks the secrets of the installation for somebody who changes it."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from hookseal.config.settings import Secrets, Settings
from hookseal.errors import Defect, Refused
from hookseal.ground.clock import Clock
from hookseal.operations import sending
from hookseal.postgres.pool import Executor
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key.stores import Outside
from hookseal.secrets.kms.keys import key_wrapper
from hookseal.secrets.store.external import Apart
from hookseal.secrets.store.several import Providers


def require_lasting(secrets: Secrets) -> None:
    """Raise `Refused` for the provider `dev`, whose keys and secrets end with the process that made them."""
    if secrets.provider is Provider.DEV:
        raise Refused("the provider dev keeps secrets in the memory of one process", advice="set SECRETS_PROVIDER=db")


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


async def unwrapped(settings: Settings, *, clock: Clock) -> Settings:
    """Return the settings with their wrapped master keys unwrapped by the KMS, or unchanged if none is wrapped.

    Nothing asks the KMS afterwards. It takes at most 15 seconds. Raises `Unavailable` if the KMS does not answer, and
    `ConfigError` if it denies, or if a key was wrapped for another installation.
    """
    secrets = settings.loaded_secrets
    if secrets is None or not secrets.wrapped.all:
        return settings
    if settings.kms is None:
        raise Defect("there are wrapped keys, and no KMS")
    async with key_wrapper(settings.kms, clock=clock) as wrapper:
        keys = {wrapped.key_id: await wrapper.unwrap(wrapped) for wrapped in secrets.wrapped.all}
    return replace(settings, loaded_secrets=secrets.with_unwrapped(keys))
