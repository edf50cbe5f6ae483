"""Loads the settings: the environment in, frozen values out, or every problem at once."""

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hookseal.config.keys import KEY_NAMES
from hookseal.config.problems import AS_IT_IS, Asked
from hookseal.config.settings import Database, Egress, Health, Log, Part, Redis, Secrets, Settings, Worker
from hookseal.config.source import Source, read_environment
from hookseal.config.variables import NAMES, Variables
from hookseal.ground.errors import ConfigError
from hookseal.secrets.cache import CacheLimits

EVERYTHING: Final = frozenset(Part)
NOTHING: Final[frozenset[Part]] = frozenset()


def load(environ: MutableMapping[str, str] | None = None, *, needs: frozenset[Part] = EVERYTHING) -> Settings:
    """Return the settings of this process; key material has then left the environment.

    A part that is not needed may be absent; what is there is checked all the same. Raises
    `ConfigError` with all problems, by name and never with a value.
    """
    environ = os.environ if environ is None else environ
    source = read_environment(environ)
    for name in KEY_NAMES:
        environ.pop(name, None)
    asked = Asked(needs=needs, named=source.named, exposed=source.exposed)
    variables, problems = _parsed(source, asked)
    problems = [*source.problems, *problems]
    if variables is None or problems:
        raise ConfigError(problems)
    return _settings(variables, source, needs)


def _parsed(source: Source, asked: Asked) -> tuple[Variables | None, list[str]]:
    # What pydantic raises holds the values, so it must not even be the context of what load raises.
    try:
        return Variables.model_validate(dict(source.values), context=asked), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    return None, [text for detail in details for text in _texts(detail, source.spelled)]


def _texts(detail: ErrorDetails, spelled: Mapping[str, str]) -> list[str]:
    name = str(detail["loc"][0])
    if detail["type"] != AS_IT_IS:
        return [f"{spelled.get(name, name)} must be {NAMES[name].title}"]
    if name in spelled:
        return [text.replace(name, spelled[name]) for text in detail["msg"].splitlines()]
    return detail["msg"].splitlines()


def _database(variables: Variables, source: Source) -> Database | None:
    found, name = variables.database, str(Part.DATABASE)
    return None if found is None else replace(found, variable=source.spelled.get(name, name))


def _redis(variables: Variables, source: Source) -> Redis | None:
    found, name = variables.redis, str(Part.REDIS)
    return None if found is None else replace(found, variable=source.spelled.get(name, name))


def _settings(variables: Variables, source: Source, needs: frozenset[Part]) -> Settings:
    secrets = None
    if Part.SECRETS in needs and variables.provider is not None:
        secrets = Secrets(
            provider=variables.provider,
            master_key=variables.master_key,
            next_key=variables.next_key,
            previous_keys=variables.previous_keys,
            cache=CacheLimits(
                ttl_seconds=variables.cache_ttl_seconds,
                max_entries=variables.cache_max_entries,
                max_bytes=variables.cache_max_bytes,
            ),
            rotation_overlap_seconds=variables.rotation_overlap_seconds,
            retired_retention_days=variables.retired_retention_days,
        )
    return Settings(
        environment=variables.environment,
        worker=Worker(
            concurrency=variables.concurrency,
            sweep_seconds=variables.sweep_seconds,
            lease_seconds=variables.lease_seconds,
            drain_seconds=variables.drain_seconds,
            queue=variables.queue,
            listen=variables.listen,
            held_days=variables.held_days,
        ),
        egress=Egress(
            allow=variables.egress_allow,
            allow_http=variables.allow_http,
            proxy=variables.egress_proxy,
            trusted=variables.egress_trusted,
        ),
        health=Health(host=variables.health_host, port=variables.health_port),
        log=Log(level=variables.log_level, style=variables.log_format),
        loaded_database=_database(variables, source) if Part.DATABASE in needs else None,
        loaded_redis=_redis(variables, source) if Part.REDIS in needs else None,
        loaded_secrets=secrets,
    )
