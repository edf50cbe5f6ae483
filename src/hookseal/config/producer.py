"""The settings of a producer: PostgreSQL, Redis if it is named, and the queue, in a process that is not ours."""

import os
from collections.abc import Mapping

from hookseal.config.load import load
from hookseal.config.settings import Part, Settings


def producer_settings(
    *, database_url: str | None = None, redis_url: str | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings, with these urls in place of those in the environment, which stays as it is.

    Redis may be absent: `loaded_redis` is None then. Raises `ConfigError` with all problems, by name and
    never with a value.
    """
    given = {str(Part.DATABASE): database_url, str(Part.REDIS): redis_url}
    ours = dict(os.environ if environ is None else environ)  # loading takes keys away, and this process may need them
    for name, url in given.items():
        if url is not None:
            ours.pop(f"{name}_FILE", None)
            ours[name] = url
    has_redis = not {str(Part.REDIS), f"{Part.REDIS}_FILE"}.isdisjoint(ours)
    return load(ours, needs=frozenset({Part.DATABASE, Part.REDIS} if has_redis else {Part.DATABASE}))
