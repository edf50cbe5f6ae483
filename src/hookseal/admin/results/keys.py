"""Results about master keys and the integrity key."""

from dataclasses import dataclass, field
from datetime import datetime

from hookseal.admin.results.base import HIDDEN
from hookseal.ground.literals import MasterKeyState


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialisedKeys:
    """The first master key, None with a provider that has none, and the references of the secrets that were created."""

    key_id: str | None
    state: str | None
    created: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKey:
    """A master key. `held`: the settings have it. `records` are under it, and `workers` live workers have it.

    An `unregistered` key has records, but is not in the table of keys: they cannot be opened.
    """

    key_id: str
    state: MasterKeyState
    held: bool
    records: int
    workers: int
    promoted_at: datetime | None
    drained_at: datetime | None
    compromised_at: datetime | None
    retired_at: datetime | None
    destroyed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKeys:
    """All master keys, oldest first: there is no next page; and how many endpoints have a plaintext secret."""

    items: tuple[MasterKey, ...]
    next_cursor: None
    plaintext_endpoints: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedKey:
    """A master key after a change; `was` is its state before, None if it was not registered.

    `older` are the keys whose records must be re-wrapped after it was promoted.
    """

    key_id: str
    state: MasterKeyState
    was: MasterKeyState | None
    promoted_at: datetime | None
    drained_at: datetime | None
    compromised_at: datetime | None
    retired_at: datetime | None
    destroyed_at: datetime | None
    older: tuple[str, ...] = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnopenedRecord:
    """A record that the key in its row does not open, and the code of the error."""

    tenant_id: str
    name: str
    version: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrappedKey:
    """How many records were moved `to` another key, how many are left, and those that did not open."""

    key_id: str
    to: str | None
    moved: int
    left: int
    failed: tuple[UnopenedRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedVersion:
    """A secret version that was ever sealed under a key. Its endpoint uses it as current, previous, headers or tls."""

    tenant_id: str
    ref: str
    purpose: str
    state: str
    endpoint_id: str | None
    used_as: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedPlace:
    """What a leaked key sealed, and its endpoint."""

    tenant_id: str
    endpoint_id: str | None
    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedReplacement(ExposedPlace):
    """What could not be replaced, and why."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compromise:
    """What was replaced after a master key leaked; in a dry run, what would be. Of `versions` most no longer sign.

    Owners must replace the `header_values` and the `client_keys`.
    """

    key_id: str
    dry_run: bool
    overlap_seconds: int
    versions: int
    rotated: int
    overlaps_ended: int
    previous_still_signing: int
    integrity_rotated: bool
    header_values: tuple[ExposedPlace, ...]
    client_keys: tuple[ExposedPlace, ...]
    failed: tuple[FailedReplacement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrityKey:
    """The version of the integrity key that makes MACs now, and the ids of those that only verify, oldest first."""

    key_id: str
    integrity_ref: str
    older: tuple[str, ...]
