"""The settings of a process that publishes or manages, and of nothing else: few variables, others unchecked."""

import os
from collections.abc import Mapping
from typing import Final

from hookseal.config import api, egress, names, openbao, providers
from hookseal.config.keys import INSTALLATION, KEY_NAMES, KMS, WRAPPED_NAMES
from hookseal.config.load import load
from hookseal.config.settings import Part, Settings
from hookseal.secrets.core.ref import Provider

_READ: Final = frozenset(
    {"HOOKSEAL_QUEUE"} | {name for name in names.KNOWN if names.variable_set_by(name) in {Part.DATABASE, Part.REDIS}}
)


def producer_settings(
    *, database_url: str | None = None, redis_url: str | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings, with these urls in place of those in the environment, which is not changed.

    Only the variables that a producer reads are checked, and names within two edits of them: all others belong to the
    process. An empty variable counts as not set. Redis is optional, and an empty `redis_url` means no Redis,
    whatever the environment has: `loaded_redis` is then None. Raises `ConfigError` with all problems, which name
    variables and contain no value.
    """
    arguments = {str(Part.DATABASE): database_url, str(Part.REDIS): redis_url}
    ours = own_variables(os.environ if environ is None else environ, _READ, arguments)
    has_redis = str(Part.REDIS) in map(names.variable_set_by, ours)
    return load(ours, needs=frozenset({Part.DATABASE, Part.REDIS} if has_redis else {Part.DATABASE}))


def own_variables(
    environ: Mapping[str, str], read: frozenset[str], arguments: Mapping[str, str | None]
) -> dict[str, str]:
    """Return the variables of these names, and names like them, with the arguments that are not None in their place.

    It is a copy, because `load` removes keys from its argument, and the process may need them.
    """
    ours = {name: value for name, value in environ.items() if _is_read(name, value, read)}
    for variable, url in arguments.items():
        if url is not None:
            for name in [name for name in ours if names.variable_set_by(name) == variable]:
                del ours[name]
        if url:
            ours[variable] = url
    return ours


def _is_read(name: str, value: str, read: frozenset[str]) -> bool:
    if name in read:
        return bool(value)
    is_known = name in names.KNOWN or not names.is_for_hookseal(name)
    return not is_known and names.is_near(name, read)


_KEYS: Final = frozenset({*KEY_NAMES, *WRAPPED_NAMES})
_VARIABLES: Final = frozenset(
    {
        str(Part.DATABASE),
        str(Part.SECRETS),
        "HOOKSEAL_ENV",
        "HOOKSEAL_ALLOW_HTTP",
        "HOOKSEAL_DRAIN_SECONDS",
        "HOOKSEAL_LEASE_SECONDS",
        "HOOKSEAL_EGRESS_ALLOW",
        "SECRETS_ROTATION_OVERLAP_SECONDS",
        egress.PROXY,
        egress.CA_FILE,
        api.PORTAL_URL,
        KMS,
        INSTALLATION,
        providers.ALSO_READ,
        providers.PREFIX,
        *_KEYS,
    }
)
_ADMIN_READ: Final = frozenset(name for name in names.KNOWN if names.variable_set_by(name) in _VARIABLES)


def admin_settings(*, database_url: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings, with this url in place of that in the environment, which is not changed.

    Only the variables that an Admin reads are checked, and names within two edits of them: all others belong to the
    process, those of a provider that the settings do not name, too. An empty variable counts as not set. Without a
    master key `loaded_secrets` is None: such an Admin can only read. A key that a KMS has wrapped is not unwrapped yet.
    Raises `ConfigError` with all problems, which name variables and contain no value.
    """
    environ = os.environ if environ is None else environ
    read = _ADMIN_READ | providers.names_in(environ) | (names.OPENBAO if openbao.is_used(environ) else frozenset())
    ours = own_variables(environ, read, {str(Part.DATABASE): database_url})
    has_keys = any(names.variable_set_by(name) in _KEYS for name in ours)
    may_change = has_keys or ours.get(Part.SECRETS) not in {None, str(Provider.DB)}
    return load(ours, needs=frozenset({Part.DATABASE, Part.SECRETS} if may_change else {Part.DATABASE}))


def api_needs(environ: Mapping[str, str]) -> frozenset[Part]:
    """Return what the HTTP API needs of this environment: keys and Redis only if it names them.

    Without a master key the API reads and publishes, and without Redis workers find events by themselves.
    """
    names_set = set(map(names.variable_set_by, environ))
    needs = {Part.DATABASE} | ({Part.REDIS} & names_set)
    if not _KEYS.isdisjoint(names_set) or environ.get(Part.SECRETS) not in {None, str(Provider.DB)}:
        needs.add(Part.SECRETS)
    return frozenset(needs)
