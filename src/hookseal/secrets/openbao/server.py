"""Where an OpenBao is, and who asks it: values that the settings make without loading a client."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hookseal.secrets.core.material import SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRole:
    """The credentials of a login by AppRole."""

    role_id: str
    secret_id: SecretMaterial = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBaoServer:
    """Where OpenBao is, and who asks. `authorities`, as PEM, replace those of the system.

    `read_again` reads the file that the token or the secret id came from, which an agent may have replaced; it raises
    `SecretUnavailable` if the file is not usable now. None: the value is not from a file.
    """

    address: str
    credentials: SecretMaterial | AppRole = field(repr=False)
    read_again: Callable[[], SecretMaterial] | None = field(default=None, repr=False, compare=False)
    namespace: str | None = None
    authorities: str | None = field(default=None, repr=False)
