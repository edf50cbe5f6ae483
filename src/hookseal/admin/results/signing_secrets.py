"""Results about secrets that sign, their rotations and their moves."""

from dataclasses import dataclass, field
from datetime import datetime

from hookseal.admin.results.base import HIDDEN
from hookseal.ground.literals import AlgorithmName, Lead, ProviderName, SchemeName, VerdictName, VersionStateName
from hookseal.secrets.core.material import SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecrets:
    """The secrets that sign for an endpoint after a change, by reference.

    Only a rotation has a `rotation_id`, and a `secret` or `public_key` for the receiver. `older_claims` is the number
    of requests in flight that may still be signed with a secret that was retired; None if it is not known.
    """

    tenant_id: str
    endpoint_id: str
    secret_ref: str
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    generation: int
    rotation_id: str | None = None
    secret: SecretMaterial | None = None
    public_key: str | None = None
    older_claims: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation(SigningSecrets):
    """A rotation. `secret.reveal()` is what the receiver needs; for ed25519 that is the `public_key` instead.

    `repeated`: a rotation with this id was made before, and nothing was changed now. Its `secret` is then None unless
    it is still the current one.
    """

    rotation_id: str
    repeated: bool = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRotation:
    """A rotation that was made, and the version of the secret that it made."""

    rotation_id: str
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationSchedule:
    """The schedule of an endpoint's rotations. The last two are None until the next rotation is announced."""

    rotate_every_days: int
    due_at: datetime
    announced_at: datetime | None
    rotates_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What a receiver answered at that generation when it was asked whether it has switched to the current secret.

    `verdict` is switched, not_switched, does_not_verify (it accepts any signature, so nothing is proven) or no_answer.
    """

    verdict: VerdictName
    status: int | None
    control_status: int | None
    detail: str | None
    sent_at: datetime
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationStatus:
    """Which secrets sign for an endpoint, the rest of its overlap, and its last ten rotations, newest first.

    `older_claims` counts requests in flight from before the last change; None if it is not known. `canary` is the last
    one of this generation, or that of this call. `overlap_ended`: this call has ended the overlap.
    """

    tenant_id: str
    endpoint_id: str
    generation: int
    scheme: SchemeName
    algorithm: AlgorithmName
    lead: Lead
    secret_ref: str | None
    previous_secret_ref: str | None
    previous_scheme: SchemeName | None
    previous_algorithm: AlgorithmName | None
    previous_secret_expires_at: datetime | None
    overlapping: bool
    seconds_left: int | None
    stale: bool
    rotations: tuple[PastRotation, ...]
    older_claims: int | None
    schedule: RotationSchedule | None
    canary: Canary | None
    overlap_ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedSecret:
    """The current secret of an endpoint. For ed25519 `secret` is None, and the receiver needs the `public_key`."""

    tenant_id: str
    endpoint_id: str
    secret_ref: str | None
    scheme: SchemeName
    algorithm: AlgorithmName
    generation: int
    secret: SecretMaterial | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """A version of an endpoint's secret, and its use. One that is not `needed` may be destroyed; `reason` says why."""

    ref: str
    state: VersionStateName
    scheme: SchemeName | None
    created_at: datetime
    changed_at: datetime
    signs: bool
    signs_until: datetime | None
    claims_in_flight: int
    attempts: int
    last_signed_at: datetime | None
    needed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """The public keys of the current secret, and of the previous one while an overlap runs; None if that has none."""

    tenant_id: str
    endpoint_id: str
    generation: int
    secret_ref: str
    public_key: str | None
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    previous_public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPurge:
    """A tenant whose versions were not destroyed, or not all, and why."""

    tenant_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """How many versions were destroyed, or would be in a `dry_run`, and the tenants for which it failed.

    `tenant_id` is None if it was for every tenant.
    """

    tenant_id: str | None
    older_than_days: int
    dry_run: bool
    versions: int
    failed: tuple[FailedPurge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearedCaches:
    """The new epoch of the caches, and how many deliveries waited for a secret."""

    epoch: int
    woken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEndpoint:
    """An endpoint whose secret stays as it was, and why."""

    tenant_id: str
    endpoint_id: str
    code: str
    message: str
    field: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigratedSecrets:
    """How many endpoints were migrated, or would be in a `dry_run`, and how many were sealed before (`present`).

    `column` is the state of the column of plaintext secrets afterwards: there, forbidden or gone. `also_standard`
    counts endpoints that sign in `x-webhook` with a secret that would be valid for `standard`, too. `emptied` endpoints
    have no plaintext any more. `failed` has the first 100 of the failures. `finalized`: this call forbade plaintext.
    """

    dry_run: bool
    finalize: bool
    scheme: SchemeName
    column: str
    migrated: int
    present: int
    also_standard: int
    emptied: int
    failures: int
    failed: tuple[FailedEndpoint, ...]
    finalized: bool = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedSecrets:
    """How many endpoints have their secrets at the provider `to` by this call, had them before, or are gone.

    A `dry_run` counts those that would be moved. `own` are the references of the installation's own secrets that were
    moved. `failed` has the first 100 of the failures.
    """

    to: ProviderName
    dry_run: bool
    moved: int
    present: int
    gone: int
    own: tuple[str, ...]
    failures: int
    failed: tuple[FailedEndpoint, ...]
