"""How to reach the providers outside PostgreSQL: values that the settings make without loading a client of one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hookseal.secrets.openbao.server import OpenBaoServer
from hookseal.secrets.ref import Provider

CALL_SECONDS: Final = 2.0
DEFAULT_PREFIX: Final = "hookseal"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsAccess:
    """The region of the secrets, and the role to assume, if any. Credentials are found as by every client of AWS.

    `may_be_plain` permits http to another machine, as outside production.
    """

    region: str
    role_arn: str | None = None
    may_be_plain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpAccess:
    """The project of the secrets. Credentials are found as by every client of Google.

    `channel` makes the connection of a test to a server of its own, with the `options` that every channel has.
    `may_be_plain` permits http to the servers that give credentials, as outside production.
    """

    project: str
    may_be_plain: bool = False
    channel: Callable[..., Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBaoAccess:
    """The server, and where the engine KV version 2 is mounted."""

    server: OpenBaoServer
    mount: str = "secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The providers outside PostgreSQL that this process can reach, and what its names begin with there.

    `call_seconds` limits one call, with its repeats.
    """

    aws: AwsAccess | None = None
    gcp: GcpAccess | None = None
    openbao: OpenBaoAccess | None = None
    prefix: str = DEFAULT_PREFIX
    call_seconds: float = CALL_SECONDS

    @property
    def providers(self) -> frozenset[Provider]:
        """The providers with settings."""
        found = {Provider.AWS: self.aws, Provider.GCP: self.gcp, Provider.OPENBAO: self.openbao}
        return frozenset(provider for provider, access in found.items() if access is not None)


NO_ACCESS: Final = Access()
