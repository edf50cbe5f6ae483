"""The settings of a producer: PostgreSQL, Redis if it is named, and the queue, in a process that is not ours."""

import os
from collections.abc import Mapping
from typing import Final

from hookseal.config import names
from hookseal.config.load import load
from hookseal.config.settings import Part, Settings

_READ: Final = frozenset(
    {"HOOKSEAL_QUEUE"} | {name for name in names.OURS if names.read_as(name) in {Part.DATABASE, Part.REDIS}}
)


def producer_settings(
    *, database_url: str | None = None, redis_url: str | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings, with these urls in place of those in the environment, which stays as it is.

    Only the variables that a producer reads are judged, and names within two edits of theirs: all others belong to the
    process. An empty variable counts as not set. Redis may be absent, and an empty `redis_url` stands for none,
    whatever the environment says: `loaded_redis` is None then. Raises `ConfigError` with all problems, by name and
    never with a value.
    """
    given = {str(Part.DATABASE): database_url, str(Part.REDIS): redis_url}
    # A copy of its own, for loading takes keys away, and this process may need them.
    ours = {
        name: value for name, value in (os.environ if environ is None else environ).items() if _is_read(name, value)
    }
    for variable, url in given.items():
        if url is not None:
            for name in [name for name in ours if names.read_as(name) == variable]:
                del ours[name]
        if url:
            ours[variable] = url
    has_redis = str(Part.REDIS) in map(names.read_as, ours)
    return load(ours, needs=frozenset({Part.DATABASE, Part.REDIS} if has_redis else {Part.DATABASE}))


def _is_read(name: str, value: str) -> bool:
    if name in _READ:
        return bool(value)
    is_known = name in names.OURS or name in names.LATER or not names.is_claimed(name)
    return not is_known and names.is_near(name, _READ)
