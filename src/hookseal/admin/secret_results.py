"""The results of an Admin about signing secrets; their repr shows no secret. Times have the zone UTC."""

from dataclasses import dataclass
from datetime import datetime

from hookseal.secrets.material import SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecrets:
    """The secrets that sign for an endpoint after a change, by reference.

    `older_claims` is the number of requests in flight that may still be signed with a secret that was retired; None if
    it is not known.
    """

    tenant_id: str
    endpoint_id: str
    secret_ref: str
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    generation: int
    older_claims: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation(SigningSecrets):
    """A rotation. `secret.reveal()` is what the receiver needs; for ed25519 that is the `public_key` instead.

    `repeated`: a rotation with this id was made before, and nothing was changed now. Its `secret` is then None unless
    it is still the current one.
    """

    rotation_id: str
    repeated: bool
    secret: SecretMaterial | None
    public_key: str | None


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

    verdict: str
    status: int | None
    control_status: int | None
    detail: str | None
    sent_at: datetime
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationStatus:
    """Which secrets sign for an endpoint, the rest of its overlap, and its last ten rotations, newest first.

    `older_claims` counts requests in flight from before the last change. `canary` is the last one of this generation.
    """

    tenant_id: str
    endpoint_id: str
    generation: int
    scheme: str
    algorithm: str
    lead: str
    secret_ref: str | None
    previous_secret_ref: str | None
    previous_scheme: str | None
    previous_algorithm: str | None
    previous_secret_expires_at: datetime | None
    overlapping: bool
    seconds_left: int | None
    stale: bool
    rotations: tuple[PastRotation, ...]
    older_claims: int
    schedule: RotationSchedule | None
    canary: Canary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedSecret:
    """The current secret of an endpoint. For ed25519 `secret` is None, and the receiver needs the `public_key`."""

    tenant_id: str
    endpoint_id: str
    secret_ref: str | None
    scheme: str
    algorithm: str
    generation: int
    secret: SecretMaterial | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """A version of an endpoint's secret, and its use. One that is not `needed` may be destroyed; `reason` says why."""

    ref: str
    state: str
    scheme: str | None
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
