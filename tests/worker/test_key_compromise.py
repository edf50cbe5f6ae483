"""The drill for a leaked master key, under the traffic of a whole worker."""

import pytest

from tests.worker.key_life import OLD, another, command, id_of, promote, rewrap, stage, staged
from tests.worker.test_rotation import arrived_once_at_the_first_attempt, nothing_left, traffic, verifies, wait_for_more
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World

_OVER = "SELECT bool_and(previous_secret_expires_at < now()) FROM hookseal.endpoints"
_SIGNED = (
    "SELECT a.signed_by, a.started_at > $1 AS after FROM hookseal.attempts AS a ORDER BY a.started_at, a.delivery_id"
)


async def overlaps_ended(world: World) -> bool:
    """Return whether the overlap of every endpoint has ended."""
    return bool(await world.pool.fetchval(_OVER))


async def run_compromise(world: World, receiver: Receiver, *keys: str, refs: set[str]) -> None:
    """Run the drill under traffic until its overlap has ended; later claims must be signed with new secrets only."""
    new = staged(keys[0])
    async with traffic(world):
        await receiver.wait_for(20)
        result = await command(world, "key", "compromise", id_of(OLD), "--overlap", "5", keys=new)
        assert (4, 2, True, []) == tuple(
            result[name] for name in ("versions", "rotated", "integrity_rotated", "failed")
        )
        await eventually(lambda: overlaps_ended(world))
        since = await world.pool.fetchval("SELECT now()")
        await wait_for_more(receiver, 40)
    await eventually(lambda: nothing_left(world))
    rows = await world.pool.fetch(_SIGNED, since)
    signed = [(set(row["signed_by"]), row["after"]) for row in rows]
    assert 10 <= sum(len(by) == 2 and len(by & refs) == 1 for by, _ in signed)
    assert 30 <= sum(after for _, after in signed)
    assert not any(by & refs for by, after in signed if after)


@pytest.mark.timeout(600)
@pytest.mark.req("SEC-22", part="under-traffic")
async def test_no_exposed_secret_signs_after_the_overlap(world: World, receiver: Receiver) -> None:
    """Deliveries continue with both signatures during the overlap; after it no exposed secret signs."""
    old = {}
    for path in ("/one", "/two"):
        added = await world.endpoint(receiver.base_url + path, timeout_ms=15_000)
        old[str(added.pointer.secret_ref)] = added.secret.reveal().decode()
    new = another()
    await stage(world, new)
    async with world.worker(**staged(new)) as worker:
        await promote(world, new)
        await rewrap(world, new)  # not enough: the key and a copy of the table reveal the secrets
        exposed = (await command(world, "key", "versions", id_of(OLD), keys=staged(new)))["items"]
        assert old.keys() == {item["ref"] for item in exposed if item["used_as"] == "current"}
        await run_compromise(world, receiver, new, refs=set(old))
        assert [] == [line for line in worker.log if line["event"] in {"delivery.waiting", "stale.found"}]

    await arrived_once_at_the_first_attempt(world, receiver)
    assert not any(verifies(secret, got) for secret in old.values() for got in receiver.received[-20:])
    repeated = await command(world, "key", "compromise", id_of(OLD), "--overlap", "3", keys=staged(new))
    assert (0, False, []) == tuple(repeated[name] for name in ("rotated", "integrity_rotated", "failed"))
