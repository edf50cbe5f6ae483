"""What hookseal has of rotations and Svix does not: where one stands, whether the receiver has switched, its end."""

from datetime import datetime
from typing import Any, Final

from hookseal.admin import Canary, RotationStatus, SigningSecrets
from hookseal.api import problems
from hookseal.api.call import OWN, Asked, Call, In, NoQuery, Once, Out, manage, read
from hookseal.api.calls.endpoints import found_id
from hookseal.api.forms import GracePeriod

ONE: Final = OWN + "/endpoint/{endpoint_id}"


class CanaryOut(Out):
    """What the receiver answered when it was asked whether it has switched to the current secret.

    `verdict` is switched, not_switched, does_not_verify (it accepts any signature, so nothing is proven) or no_answer.
    `controlStatus` is its status for a request whose signature is wrong.
    """

    verdict: str
    status: int | None
    control_status: int | None
    detail: str | None
    sent_at: datetime
    generation: int


class RotationOut(Out):
    """Which secrets sign for an endpoint, by reference. While two do, the previous one does until `overlapEndsAt`.

    `canary` is the last probe of this generation.
    """

    generation: int
    secret_ref: str | None
    previous_secret_ref: str | None
    overlap_ends_at: datetime | None
    overlapping: bool
    canary: CanaryOut | None


class RollbackIn(In):
    """How many seconds the secret that was current signs beside the one before it, by default a day."""

    grace_period_seconds: GracePeriod | None = None


class ProbeIn(In):
    """Whether to end the time in which two secrets sign if the receiver has switched."""

    end_overlap: bool = False


class PublicKeysOut(Out):
    """The public keys with which a receiver verifies: of the current secret, and of the previous one while it signs."""

    generation: int
    secret_ref: str
    public_key: str | None
    previous_secret_ref: str | None
    previous_public_key: str | None
    overlap_ends_at: datetime | None


def _canary(canary: Canary | None) -> CanaryOut | None:
    if canary is None:
        return None
    return CanaryOut(
        verdict=canary.verdict,
        status=canary.status,
        control_status=canary.control_status,
        detail=problems.stored_text(canary.detail),
        sent_at=canary.sent_at,
        generation=canary.generation,
    )


def _of_status(status: RotationStatus) -> RotationOut:
    return RotationOut(
        generation=status.generation,
        secret_ref=status.secret_ref,
        previous_secret_ref=status.previous_secret_ref,
        overlap_ends_at=status.previous_secret_expires_at if status.overlapping else None,
        overlapping=status.overlapping,
        canary=_canary(status.canary),
    )


def _of_change(secrets: SigningSecrets) -> RotationOut:
    return RotationOut(
        generation=secrets.generation,
        secret_ref=secrets.secret_ref,
        previous_secret_ref=secrets.previous_secret_ref,
        overlap_ends_at=secrets.previous_secret_expires_at,
        overlapping=secrets.previous_secret_ref is not None,
        canary=None,
    )


async def rotation(asked: Asked[NoQuery, None]) -> RotationOut:
    """Return which secrets sign for an endpoint, and until when."""
    return _of_status(await asked.admin.secrets.status(tenant_id=asked.tenant, endpoint_id=await found_id(asked)))


async def probe(asked: Asked[NoQuery, ProbeIn]) -> RotationOut:
    """Ask the receiver by one or two signed pings whether it has switched to the current secret.

    It waits for the receiver, at most for the time-out of the endpoint each time.
    """
    return _of_status(
        await asked.admin.secrets.check_switch(
            tenant_id=asked.tenant,
            endpoint_id=await found_id(asked),
            end_overlap=asked.body.end_overlap,
            actor=asked.access.actor,
        )
    )


async def roll_back(asked: Asked[NoQuery, RollbackIn]) -> RotationOut:
    """Make the previous secret of an endpoint current again, while both sign."""
    return _of_change(
        await asked.admin.secrets.roll_back(
            tenant_id=asked.tenant,
            endpoint_id=await found_id(asked),
            overlap_seconds=asked.body.grace_period_seconds,
            wait=None,
            actor=asked.access.actor,
        )
    )


async def end_overlap(asked: Asked[NoQuery, None]) -> RotationOut:
    """Let only the current secret of an endpoint sign from now on."""
    return _of_change(
        await asked.admin.secrets.end_overlap(
            tenant_id=asked.tenant, endpoint_id=await found_id(asked), wait=None, actor=asked.access.actor
        )
    )


async def stands(asked: Asked[Any, Any], _generation: str) -> RotationOut:
    """Return what an earlier request has changed, as it is now."""
    return await rotation(asked)


_CHANGED: Final = Once(result_id="generation", again=stands)


async def public_keys(asked: Asked[NoQuery, None]) -> PublicKeysOut:
    """Return the public keys of an endpoint that signs with ed25519."""
    keys = await asked.admin.secrets.public_keys(tenant_id=asked.tenant, endpoint_id=await found_id(asked))
    return PublicKeysOut(
        generation=keys.generation,
        secret_ref=keys.secret_ref,
        public_key=keys.public_key,
        previous_secret_ref=keys.previous_secret_ref,
        previous_public_key=keys.previous_public_key,
        overlap_ends_at=keys.previous_secret_expires_at,
    )


CALLS: Final[tuple[Call, ...]] = (
    read("hookseal.rotation", ONE + "/rotation", rotation, result=RotationOut),
    manage("hookseal.probe", "POST", ONE + "/rotation/probe", probe, body=ProbeIn, result=RotationOut),
    manage(
        *("hookseal.roll_back", "POST", ONE + "/rotation/rollback"),
        roll_back,
        body=RollbackIn,
        result=RotationOut,
        names={"overlap_seconds": "gracePeriodSeconds"},
        once=_CHANGED,
    ),
    manage("hookseal.end_overlap", "POST", ONE + "/rotation/end", end_overlap, result=RotationOut, once=_CHANGED),
    read("hookseal.public_keys", ONE + "/public-keys", public_keys, result=PublicKeysOut),
)
