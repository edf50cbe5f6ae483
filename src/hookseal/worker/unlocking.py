"""Unlocks the secrets of a worker at its start, and logs what it will not be able to read."""

from typing import Any

from hookseal.config.settings import Settings
from hookseal.ground.clock import Clock
from hookseal.operations import sending
from hookseal.postgres.pool import Pool, transaction
from hookseal.postgres.translate import translated
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key import active_key
from hookseal.secrets.key.stores import Outside, arrange_keyring


async def unlocked(settings: Settings, pool: Pool, outside: Outside, *, clock: Clock, log: Any) -> Unlocked:
    """Return the unlocked secrets of the worker, read through its cache. Raises as `unlock` does."""
    if settings.secrets.provider is Provider.DEV:
        log.warning("secrets.in_memory", reason="SECRETS_PROVIDER is dev: every secret is lost when this process ends")
    secrets = await unlock(
        pool,
        settings.secrets.provider,
        settings.secrets.keyring,
        cache=settings.secrets.cache,
        clock=clock,
        trust=sending.trust(settings.egress),
        outside=outside,
    )
    if secrets.stores is not None and secrets.stores.unreachable:
        log.warning(
            "secrets.unreachable",
            providers=sorted(secrets.stores.unreachable),
            reason="secrets in use are kept by providers that this worker has no settings for: their deliveries wait",
        )
    return secrets


async def require_keys(pool: Pool, ring: KeyRing | None) -> None:
    """Raise if the key ring does not fit, after waiting for key changes that began before this worker was visible."""
    if ring is None:
        return
    with translated():
        async with transaction(pool) as connection:
            await active_key.lock_shared(connection)
            await arrange_keyring(connection, ring)
