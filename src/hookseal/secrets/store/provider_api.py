"""The interface of a provider outside PostgreSQL: it keeps bytes under the reference of a version, written once.

What it keeps is encrypted (`sealing/halves.py`); the states of versions, their purposes and their numbers are in
PostgreSQL (`external.py`). tests/secrets/store/test_provider_laws.py checks the rules for each implementation.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from hookseal.ground.errors import Cause
from hookseal.secrets.errors import SecretDenied, SecretError, SecretNotFound, SecretTampered, SecretUnavailable
from hookseal.secrets.ref import Provider, SecretRef

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


def gone(place: str) -> SecretNotFound:
    """Return the error for a version that PostgreSQL knows and the provider does not."""
    return SecretNotFound(
        f"{place} is not there, although PostgreSQL knows it: somebody removed it. Restore it there, or run "
        "`hookseal endpoint rotate --overlap 0`"
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
