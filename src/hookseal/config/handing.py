"""What a process passes to a child: the variables of hookseal by a pipe, all others by the environment."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from hookseal.config import names, openbao
from hookseal.config.keys import INSTALLATION, KMS, MASTER_KEY, NEXT_KEY, PREVIOUS_KEYS, WRAPPED_NAMES
from hookseal.config.settings import Secrets
from hookseal.config.source import read_environment
from hookseal.config.urls import LISTEN_URL
from hookseal.secrets.sealing.keyring import MasterKey

WRAPPED: Final = frozenset(WRAPPED_NAMES)
_READ_AGAIN: Final = frozenset({*openbao.CREDENTIALS, *names.PREFERRED, *names.PREFERRED.values(), LISTEN_URL})
# The child needs the log level before it receives its settings; it contains no secret.
_INHERITED: Final = "HOOKSEAL_LOG_LEVEL"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitEnvironment:
    """The variables of hookseal with their values, and the environment without them.

    `files` has the paths of those that came from a file which may be read again.
    """

    variables: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str]
    environment: Mapping[str, str] = field(repr=False)

    def with_unwrapped(self, secrets: Secrets) -> "SplitEnvironment":
        """Return the same, with the keys of these settings in place of wrapped ones: a child asks no KMS.

        So a process that is started again later needs no KMS that answers.
        """
        if not WRAPPED.intersection(self.variables):
            return self
        keys = {
            MASTER_KEY: (secrets.master_key,),
            NEXT_KEY: (secrets.next_key,),
            PREVIOUS_KEYS: secrets.previous_keys,
        }
        plain = {name: ",".join(_written(key) for key in several if key) for name, several in keys.items()}
        kept = {name: value for name, value in self.variables.items() if name not in WRAPPED | {KMS, INSTALLATION}}
        return replace(self, variables=kept | {name: text for name, text in plain.items() if text})


def _written(key: MasterKey) -> str:
    return base64.b64encode(key.material.reveal()).decode("ascii")


def split_environment(environ: Mapping[str, str] | None = None) -> SplitEnvironment:
    """Split the environment so that `load` in a child process returns the same settings from `variables`.

    Files are read here; `files` has the paths of credentials that are read again while a process runs. `environment`
    has no variable of hookseal except the log level: no password and no key. Errors in the variables are left to
    `load`, which must have accepted them. Call this before `load`, which removes the keys from the environment.
    """
    environ = os.environ if environ is None else environ
    source, ours = read_environment(environ), names.ours(environ)
    return SplitEnvironment(
        variables={source.written_as.get(name, name): value for name, value in source.values.items()},
        files={name: path for name, path in source.files.items() if names.FROM_FILE[name] in _READ_AGAIN},
        environment={name: value for name, value in environ.items() if name == _INHERITED or name not in ours},
    )
