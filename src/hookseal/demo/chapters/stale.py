"""Stale row: an attacker writes back an older endpoint row with a revoked secret; it is detected, nothing is sent."""

from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.result import Chapter, failed_checks, nothing_refused
from hookseal.demo.stage import AddedEndpoint, Stage, time_limit
from hookseal.dispatcher.core.model import Ring, State
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.operations.restore import accept_restore
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest

NAME: Final = "stale row"
_PATH: Final = "/initech/stale"
_EVENT_TYPE: Final = "printer.moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the delivery waited for, the requests before and after the acceptance, and the accepted endpoints."""

    waited_for: str | None
    arrived_before: int
    accepted: int
    verified: int
    refused: int


async def run(stage: Stage) -> Chapter:
    """Revoke a secret, write the old row back, publish; then accept the row as a restore. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE)
    old = await stage.read_row(endpoint)
    await _revoke(stage, endpoint)
    await stage.write_row(endpoint, old)
    (ring,) = await stage.publish(endpoint.tenant_id, _EVENT_TYPE, 1)
    async with time_limit():
        await stage.wait_until_held(ring)
    waited_for, arrived = await stage.waiting_for(ring), len(stage.receiver.verified(_PATH))
    return judge(
        Seen(
            waited_for=waited_for,
            arrived_before=arrived,
            accepted=await _accept(stage, endpoint, ring),
            verified=len(stage.receiver.verified(_PATH)),
            refused=stage.receiver.refused(_PATH),
        )
    )


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it passes if nothing was sent before the restore was accepted, and all after it."""
    return Chapter(
        name=NAME,
        detail="an old row with a revoked secret sent nothing until it was accepted",
        seen=asdict(seen),
        missing=failed_checks(
            (seen.waited_for == "secret", f"a delivery that waits for its secret: it waited for {seen.waited_for}"),
            (seen.arrived_before == 0, f"no request with the revoked secret: {seen.arrived_before} came"),
            (seen.accepted == 1, f"one accepted endpoint: there were {seen.accepted}"),
            (seen.verified == 1, f"one request that verifies: there were {seen.verified}"),
            nothing_refused(seen.refused),
        ),
    )


async def _revoke(stage: Stage, endpoint: AddedEndpoint) -> None:
    wanted = RotationRequest(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.endpoint_id,
        overlap_seconds=0,
        secret=generate_signing_secret(),
    )
    async with stage.operator() as operator:
        await rotate_secret(operator, wanted)


async def _accept(stage: Stage, endpoint: AddedEndpoint, ring: Ring) -> int:
    async with stage.operator() as operator:
        accepted = await accept_restore(operator, ())
    async with time_limit():
        await stage.wait_for_state(ring, State.DELIVERED)
    return sum(found.endpoint_id == endpoint.endpoint_id for found in accepted.endpoints)
