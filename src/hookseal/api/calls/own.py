"""What hookseal has and Svix does not: where a rotation stands and how it is ended, and why a delivery waits."""

from datetime import datetime
from typing import Any, Final

from hookseal.admin import RotationStatus, SigningSecrets
from hookseal.api.call import Asked, Call, In, NoQuery, Once, Out, manage, operate, read
from hookseal.api.calls.endpoints import found_id

OWN: Final = "/api/hookseal/v1/app/{app_id}"
_ONE: Final = OWN + "/endpoint/{endpoint_id}"
_DELIVERY: Final = OWN + "/delivery/{delivery_id}"


class RotationOut(Out):
    """Which secrets sign for an endpoint, by reference. While two do, the previous one does until `overlapEndsAt`."""

    generation: int
    secret_ref: str | None
    previous_secret_ref: str | None
    overlap_ends_at: datetime | None
    overlapping: bool


class RollbackIn(In):
    """How long the secret that was current signs beside the one before it."""

    grace_period_seconds: int | None = None


class WhyOut(Out):
    """Where a delivery stands, what it waits for (docs/lifecycle.md), and since when."""

    delivery_id: str
    state: str
    waiting_for: str | None
    since: datetime | None


class SkippedOut(Out):
    """A delivery that no longer stops its ordered endpoint."""

    delivery_id: str
    endpoint_id: str
    state: str


def _of_status(status: RotationStatus) -> RotationOut:
    return RotationOut(
        generation=status.generation,
        secret_ref=status.secret_ref,
        previous_secret_ref=status.previous_secret_ref,
        overlap_ends_at=status.previous_secret_expires_at if status.overlapping else None,
        overlapping=status.overlapping,
    )


def _of_change(secrets: SigningSecrets) -> RotationOut:
    return RotationOut(
        generation=secrets.generation,
        secret_ref=secrets.secret_ref,
        previous_secret_ref=secrets.previous_secret_ref,
        overlap_ends_at=secrets.previous_secret_expires_at,
        overlapping=secrets.previous_secret_ref is not None,
    )


async def rotation(asked: Asked[NoQuery, None]) -> RotationOut:
    """Return which secrets sign for an endpoint, and until when."""
    return _of_status(await asked.admin.secrets.status(tenant_id=asked.tenant, endpoint_id=await found_id(asked)))


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


async def why(asked: Asked[NoQuery, None]) -> WhyOut:
    """Explain where a delivery stands."""
    delivery_id = asked.path["delivery_id"]
    found = await asked.admin.deliveries.why(tenant_id=asked.tenant, delivery_id=delivery_id)
    return WhyOut(
        delivery_id=delivery_id,
        state=found.state.value,
        waiting_for=None if found.waiting_for is None else found.waiting_for.value,
        since=found.since,
    )


async def skip(asked: Asked[NoQuery, None]) -> SkippedOut:
    """Let an ordered endpoint go on behind a delivery that was given up and stops it."""
    skipped = await asked.admin.deliveries.skip(
        tenant_id=asked.tenant, delivery_id=asked.path["delivery_id"], actor=asked.access.actor
    )
    return SkippedOut(delivery_id=skipped.delivery_id, endpoint_id=skipped.endpoint_id, state=skipped.state)


async def skipped(asked: Asked[Any, Any], delivery_id: str) -> SkippedOut:
    """Return a delivery that an earlier request has skipped. Raises `NotFound`."""
    delivery = await asked.admin.deliveries.get(tenant_id=asked.tenant, delivery_id=delivery_id)
    return SkippedOut(delivery_id=delivery_id, endpoint_id=delivery.endpoint_id, state=delivery.state)


_CHANGED: Final = Once(result_id="generation", again=stands)
CALLS: Final[tuple[Call, ...]] = (
    read("hookseal.rotation", _ONE + "/rotation", rotation, result=RotationOut),
    manage(
        *("hookseal.roll_back", "POST", _ONE + "/rotation/rollback"),
        roll_back,
        body=RollbackIn,
        result=RotationOut,
        names={"overlap_seconds": "gracePeriodSeconds"},
        once=_CHANGED,
    ),
    manage("hookseal.end_overlap", "POST", _ONE + "/rotation/end", end_overlap, result=RotationOut, once=_CHANGED),
    read("hookseal.why", _DELIVERY + "/why", why, result=WhyOut),
    operate(
        *("hookseal.skip", _DELIVERY + "/skip", skip),
        result=SkippedOut,
        once=Once(result_id="delivery_id", again=skipped),
    ),
)
