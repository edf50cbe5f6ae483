"""The interface of a secret store: five methods, and the rules that every implementation follows.

tests/secrets/store/test_store_laws.py checks the rules for each implementation. Outside PostgreSQL only the material
is kept, by a `ProviderApi`; the rest of a store is the same for all of them (`external.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from hookseal.errors import Cause, SecretDenied, SecretError, SecretNotFound, SecretTampered, SecretUnavailable
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.openbao.server import OpenBaoServer


class VersionState(StrEnum):
    """The state of a secret version."""

    ACTIVE = "active"
    PREVIOUS = "previous"
    RETIRED = "retired"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """One version of a secret, without its material."""

    ref: SecretRef
    state: VersionState
    purpose: Purpose
    scheme: str | None
    created_at: datetime
    changed_at: datetime


class SecretStore(Protocol):
    """Keeps secrets in numbered versions that never change.

    An implementation follows these rules. The tenant is part of every request and of every key that is looked up. At
    most one version of a name is active, and at most one is previous. A version number is used once. Material is
    returned only as `SecretMaterial`, for the purpose that it was stored for. Errors of the service behind become a
    `SecretError` (definitive) or `SecretUnavailable` (transient), and contain no value.
    """

    @property
    def provider(self) -> Provider:
        """The provider in the references of new versions."""
        ...

    @property
    def providers(self) -> frozenset[Provider]:
        """The providers whose references this store reads."""
        ...

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Store the first version of a new name as the active one, and return its reference.

        Raises `Conflict` if the tenant has ever used the name, `Malformed` if tenant, name or material (1 byte to
        64 KiB) is malformed, and `SecretUnavailable`.
        """
        ...

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Return the material of exactly that version, in any state but destroyed.

        The pointer decides which versions sign, not the store. Raises `SecretNotFound`,
        `SecretDenied` (another provider or purpose), `SecretDestroyed`, `SecretTampered` and
        `SecretUnavailable`.
        """
        ...

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Store a new version and return its reference, in one step, completely or not at all.

        The new version becomes active, the active one previous, and the previous one retired. Concurrent rotations of
        one name run one after the other. Raises `SecretNotFound` if the name does not exist, `SecretDenied` if it
        exists for another purpose, `Malformed` and `SecretUnavailable`.
        """
        ...

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name, oldest first; none if there is no such name.

        Raises `Malformed` and `SecretUnavailable`.
        """
        ...

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good; the version stays listed. A second call changes nothing.

        Raises `SecretNotFound`, `SecretDenied` (another provider) and `SecretUnavailable`.
        """
        ...


def first_ref(provider: Provider, tenant: TenantId, name: str) -> SecretRef:
    """Return the reference of a name's first version. Raises `Malformed` if tenant or name is malformed."""
    return SecretRef(provider=provider, tenant=tenant, name=name, version=1)


def require_purpose(stored: str, asked: Purpose) -> None:
    """Raise `SecretDenied` if the secret was stored for another purpose."""
    if stored != asked:
        raise SecretDenied(f"the secret was not put for the purpose {asked}")


LABEL: Final = "hookseal-installation"  # what marks a secret at a provider as ours


class NumberTaken(SecretError):
    """Other bytes of this installation lie under this version: a change that failed left them there."""

    code = "number_taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What the provider still has to keep of a name when a version of it is removed.

    `is_needed`: other versions of the name. `active`: the version that is active, None if it is kept elsewhere.
    """

    is_needed: bool
    active: SecretRef | None = None


class ProviderApi(Protocol):
    """Writes, reads and removes the bytes of versions at one provider.

    An implementation follows these rules. A version never changes: the same bytes may be written again, others may
    not. A read returns exactly the version that was asked for. Each call ends within `seconds`. An error that a
    repeat may cure is `SecretUnavailable`, whose `cause` is not silence if the provider answered; any other is a
    `SecretError`. Each says who must do what. No error and no log line contains the bytes or a credential.
    """

    @property
    def provider(self) -> Provider:
        """The provider in the references that it serves."""
        ...

    @property
    def seconds(self) -> float:
        """How long one call may take, with its repeats."""
        ...

    async def prepare(self) -> None:
        """Load the client and find the credentials, which the first call would do otherwise, within its time.

        Raises `SecretDenied` without credentials, and `SecretUnavailable`.
        """
        ...

    async def write(self, ref: SecretRef, payload: bytes, *, owner: str, is_first: bool) -> None:
        """Keep the bytes under the version, marked with `owner`, the id of the installation.

        `is_first`: the provider has no version of the name that is needed. Raises `NumberTaken`, `SecretDenied` (no
        right, or the name belongs to somebody else) and `SecretUnavailable`; then it may or may not have been written.
        """
        ...

    async def read(self, ref: SecretRef) -> bytes:
        """Return the bytes of the version.

        Raises `SecretNotFound` if there are none, `SecretDenied` without the right, `SecretTampered` for an answer that
        cannot be trusted, and `SecretUnavailable`.
        """
        ...

    async def remove(self, ref: SecretRef, rest: Rest, *, owner: str) -> None:
        """Remove the version as far as the provider can, if it is marked with `owner`. Else there is nothing to do.

        Raises `SecretDenied` and `SecretUnavailable`.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def no_such_secret() -> SecretNotFound:
    """Return the error for a version without a record, or without its material in the record."""
    return SecretNotFound(
        "There is no such secret",
        advice="restore its record from a backup, or run `hookseal endpoint rotate --overlap 0`.",
    )


def gone(place: str) -> SecretNotFound:
    """Return the error for a version that PostgreSQL knows and the provider does not."""
    return SecretNotFound(
        f"{place} is not there, although PostgreSQL knows it: somebody removed it",
        advice="Restore it there, or run `hookseal endpoint rotate --overlap 0`",
        joint=". ",
    )


def of_somebody_else(place: str) -> SecretDenied:
    """Return the error for a name at the provider that this installation did not make."""
    return SecretDenied(
        f"{place} is there, and this installation of hookseal did not make it: rename or remove it, or give this "
        "installation names of its own with SECRETS_NAME_PREFIX before it stores its first secret"
    )


def another_version(place: str) -> SecretTampered:
    """Return the error for an answer with another version than was asked for."""
    return SecretTampered(f"{place}: the answer is about another version than was asked for, so it is not used")


def no_answer(place: str, why: str) -> SecretUnavailable:
    """Return the error for a call without an answer. A provider that answers that it cannot is not silent."""
    return SecretUnavailable(f"{place} does not answer ({why})")


def in_change(place: str, why: str) -> SecretUnavailable:
    """Return the error for a secret that something else changes at the same time."""
    return SecretUnavailable(f"{place} cannot be changed now ({why}): try again", cause=Cause.FAILING)


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
        settings = {Provider.AWS: self.aws, Provider.GCP: self.gcp, Provider.OPENBAO: self.openbao}
        return frozenset(provider for provider, access in settings.items() if access is not None)


NO_ACCESS: Final = Access()
