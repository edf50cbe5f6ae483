"""How every command begins: settings, protection of keys, logs. It loads no client of a server but that of a KMS."""

import asyncio
from collections.abc import Mapping, MutableMapping
from types import MappingProxyType

from hookseal.config.load import harden_process, load
from hookseal.config.settings import Part, Settings
from hookseal.ground import log
from hookseal.ground.clock import SystemClock


def begin(
    needs: frozenset[Part],
    environ: MutableMapping[str, str] | None = None,
    *,
    files: Mapping[str, str] = MappingProxyType({}),
    draws_key: bool = False,
) -> Settings:
    """Return the settings that the command needs; configure logs by them, and protect a process that gets keys.

    They are read from `environ`, by default the environment of the process; `files` is as `load` says. A KMS has
    unwrapped the master keys. A command that draws the master key needs settings without one. Raises `ConfigError` with
    all problems, and `Unavailable` if the KMS does not answer in time.
    """
    settings = load(environ, needs=needs, files=files, draws_key=draws_key)
    if Part.SECRETS in needs:
        harden_process()
    log.configure(level=settings.log.level, style=settings.log.style)
    for name in settings.unknown:
        log.logger().warning("setting.unknown", setting=name, reason="this version ignores it")
    if settings.loaded_secrets is None or not settings.loaded_secrets.wrapped.all:
        return settings
    from hookseal.operations.unlocking import unwrapped  # noqa: PLC0415 -- most processes have no KMS

    return asyncio.run(unwrapped(settings, clock=SystemClock()))
