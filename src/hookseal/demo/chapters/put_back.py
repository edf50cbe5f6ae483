"""Put back: somebody restores an older endpoint row, which would sign with a revoked secret; it is found, and waits."""

from dataclasses import asdict, dataclass
from typing import Final

from hookseal.demo.result import Chapter, lacking, none_refused
from hookseal.demo.stage import Added, Stage, patience
from hookseal.dispatcher.model import Ring, State
from hookseal.operations.restore import accept_restore
from hookseal.operations.rotation import rotate
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret

NAME: Final = "put back"
_PATH: Final = "/initech/put-back"
_EVENT_TYPE: Final = "printer.moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the delivery waited for, what had arrived by then, how many endpoints were accepted, and what then came."""

    waited_for: str | None
    arrived_before: int
    accepted: int
    verified: int
    refused: int


async def tell(stage: Stage) -> Chapter:
    """Revoke a secret, put the old row back, publish; then accept it as a restore. Raises `Unavailable`."""
    endpoint = await stage.add(_PATH, _EVENT_TYPE)
    old = await stage.row(endpoint)
    await _revoked(stage, endpoint)
    await stage.put_back(endpoint, old)
    (ring,) = await stage.publish(endpoint.tenant_id, _EVENT_TYPE, 1)
    async with patience():
        await stage.held(ring)
    waited_for, arrived = await stage.waits_for(ring), len(stage.receiver.verified(_PATH))
    return judge(
        Seen(
            waited_for=waited_for,
            arrived_before=arrived,
            accepted=await _accepted(stage, endpoint, ring),
            verified=len(stage.receiver.verified(_PATH)),
            refused=stage.receiver.refused(_PATH),
        )
    )


def judge(seen: Seen) -> Chapter:
    """Return the chapter: it holds if nothing left before the restore was accepted, and everything after it."""
    return Chapter(
        name=NAME,
        detail="an old row with a revoked secret sent nothing until it was accepted",
        seen=asdict(seen),
        missing=lacking(
            (seen.waited_for == "secret", f"the wait for the secret: it waited for {seen.waited_for}"),
            (seen.arrived_before == 0, f"silence of the revoked secret: {seen.arrived_before} came"),
            (seen.accepted == 1, f"one endpoint that was accepted: there were {seen.accepted}"),
            (seen.verified == 1, f"one request that verifies: there were {seen.verified}"),
            none_refused(seen.refused),
        ),
    )


async def _revoked(stage: Stage, endpoint: Added) -> None:
    wanted = Wanted(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.endpoint_id,
        overlap_seconds=0,
        secret=generate_signing_secret(),
    )
    async with stage.operator() as operator:
        await rotate(operator, wanted)


async def _accepted(stage: Stage, endpoint: Added, ring: Ring) -> int:
    async with stage.operator() as operator:
        accepted = await accept_restore(operator, ())
    async with patience():
        await stage.reached(ring, State.DELIVERED)
    return sum(found.endpoint_id == endpoint.endpoint_id for found in accepted.endpoints)
