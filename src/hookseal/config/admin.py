"""The settings of an Admin, in a process that is not hookseal's: PostgreSQL, secrets, and how pings are sent."""

import os
from collections.abc import Mapping
from typing import Final

from hookseal.config import egress, names, openbao, providers
from hookseal.config.keys import INSTALLATION, KEY_NAMES, KMS, WRAPPED_NAMES
from hookseal.config.load import load
from hookseal.config.producer import chosen
from hookseal.config.settings import Part, Settings
from hookseal.secrets.core.ref import Provider

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
        KMS,
        INSTALLATION,
        providers.ALSO_READ,
        providers.PREFIX,
        *_KEYS,
    }
)
_READ: Final = frozenset(name for name in names.KNOWN if names.variable_set_by(name) in _VARIABLES)


def admin_settings(*, database_url: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings, with this url in place of that in the environment, which is not changed.

    Only the variables that an Admin reads are checked, and names within two edits of them: all others belong to the
    process, those of a provider that the settings do not name, too. An empty variable counts as not set. Without a
    master key `loaded_secrets` is None: such an Admin can only read. A key that a KMS has wrapped is not unwrapped yet.
    Raises `ConfigError` with all problems, which name variables and contain no value.
    """
    environ = os.environ if environ is None else environ
    read = _READ | providers.names_in(environ) | (names.OPENBAO if openbao.is_used(environ) else frozenset())
    ours = chosen(environ, read, {str(Part.DATABASE): database_url})
    has_keys = any(names.variable_set_by(name) in _KEYS for name in ours)
    may_change = has_keys or ours.get(Part.SECRETS) not in {None, str(Provider.DB)}
    return load(ours, needs=frozenset({Part.DATABASE, Part.SECRETS} if may_change else {Part.DATABASE}))
