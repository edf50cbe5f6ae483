"""Unwraps the master keys of the settings, once, before a process uses them."""

from dataclasses import replace

from hookseal.config.settings import Settings
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Defect
from hookseal.secrets.kms.keys import key_wrapper


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
