"""The background loops of whole workers: leadership, rings of the outbox, and figures."""

import os
import signal
from contextlib import AsyncExitStack

import pytest

from hookseal.worker.metrics.definitions import LOOPS
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World, status

NEVER_SWEEPS = {"HOOKSEAL_SWEEP_SECONDS": "300"}
HOLDER = "SELECT holder FROM hookseal.control WHERE name = 'outbox' AND until > now()"


async def leader(world: World, among: list[Worker]) -> Worker:
    """Return the leader among these workers, once there is one."""
    workers = {worker.process.ready["worker_id"]: worker for worker in among}

    async def look() -> Worker | None:
        return workers.get(await world.pool.fetchval(HOLDER))

    return await eventually(look)


async def live(world: World) -> set[str]:
    """Return the ids of the workers that have a row in the table of workers."""
    return {row["id"] for row in await world.pool.fetch("SELECT id FROM hookseal.workers")}


async def publish_unrung(world: World) -> None:
    """Publish by SQL, without a ring."""
    await world.pool.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")


@pytest.mark.req("DEL-01")
async def test_a_killed_leader_is_replaced(world: World, receiver: Receiver) -> None:
    """When the leader is killed, another worker leads after the lease has expired, and rings unrung deliveries."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(world.worker(**NEVER_SWEEPS)) for _ in range(2)]
        first = await leader(world, workers)
        workers.remove(first)
        os.kill(first.pid, signal.SIGKILL)
        await first.ended()
        await world.pool.execute("UPDATE hookseal.control SET until = now() WHERE name = 'outbox'")  # it has expired
        await leader(world, workers)
        await publish_unrung(world)
        await receiver.wait_for(1)
        assert first.process.ready["worker_id"] in await live(world)


async def test_a_stopped_leader_is_replaced_at_once(world: World, receiver: Receiver) -> None:
    """A worker that is stopped gives up the lead and deletes its row; another leads before the lease expires."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(world.worker(**NEVER_SWEEPS)) for _ in range(2)]
        first = await leader(world, workers)
        workers.remove(first)
        assert {each.process.ready["worker_id"] for each in (first, *workers)} == await live(world)
        lease_ends = await world.pool.fetchval("SELECT until FROM hookseal.control WHERE name = 'outbox'")
        os.kill(first.pid, signal.SIGTERM)
        assert 0 == await first.ended()
        second = await leader(world, workers)
        assert await world.pool.fetchval("SELECT now() < $1", lease_ends), "the lease expired before another worker led"
        assert {second.process.ready["worker_id"]} == await live(world)
        await publish_unrung(world)
        await receiver.wait_for(1)
    assert set() == await live(world)
    assert await world.pool.fetchval(HOLDER) is None


@pytest.mark.req("DEL-06")
async def test_a_due_retry_needs_no_sweep(world: World, receiver: Receiver) -> None:
    """The outbox rings a failed delivery again when its back-off has ended."""
    receiver.answers["/hook"] = status(500)
    await world.endpoint(f"{receiver.base_url}/hook")
    await world.pool.execute("UPDATE hookseal.endpoints SET retry_schedule = '{1}'")
    async with world.worker(**NEVER_SWEEPS):
        [ring] = await world.publish()
        await world.tried(ring)
        del receiver.answers["/hook"]
        row = await world.state(ring, "delivered")

    assert 2 == row["attempts"]


@pytest.mark.req("DEL-01")
@pytest.mark.parametrize(("listen", "notifies"), [("true", True), ("false", False)])
async def test_notifications_are_requested_only_if_set(
    listen: str, notifies: bool, world: World, receiver: Receiver
) -> None:
    """With HOOKSEAL_LISTEN a worker asks for notifications, without it does not; events are delivered in both cases."""
    await world.endpoint(f"{receiver.base_url}/hook")
    until = "SELECT until IS NOT NULL FROM hookseal.control WHERE name = 'notify'"
    async with world.worker(HOOKSEAL_LISTEN=listen, **NEVER_SWEEPS) as worker:
        await leader(world, [worker])
        if notifies:

            async def asked() -> bool:
                return bool(await world.pool.fetchval(until))

            await eventually(asked)
        await publish_unrung(world)
        await receiver.wait_for(1)
        assert notifies == await world.pool.fetchval(until)


@pytest.mark.req("OPS-02", part="scraped")
async def test_the_figures_count_each_event(world: World, receiver: Receiver) -> None:
    """After one delivery, one failure, one 410 and one held delivery, the figures say exactly that, without ids."""
    receiver.answers |= {"/500": status(500), "/410": status(410)}
    for path in ("/hook", "/500", "/410"):
        await world.endpoint(receiver.base_url + path)
    altered = await world.endpoint(f"{receiver.base_url}/altered")
    await world.pool.execute(
        "UPDATE hookseal.endpoints SET generation = generation + 1 WHERE id = $1::text::uuid",
        altered.pointer.endpoint_id,
    )
    async with world.worker() as worker:
        rings = await world.publish()
        waits = next(ring for ring in rings if ring.endpoint_id == altered.pointer.endpoint_id)
        await world.state(waits, "pending", waiting_for="secret")
        await receiver.wait_for(3)

        async def settled() -> dict[tuple[str, str | None], float] | None:
            found = await worker.figures()
            attempts = sum(value for (name, _), value in found.items() if name == "hookseal_attempts_total")
            is_measured = found.get(("hookseal_waiting", "secret")) == 1.0
            return found if attempts == 3 and is_measured else None

        found = await eventually(settled)
        key_id = await world.pool.fetchval("SELECT key_id FROM hookseal.secret_keys")

    expected: dict[tuple[str, str | None], float] = {
        ("hookseal_attempts_total", "delivered"): 1.0,
        ("hookseal_attempts_total", "server_error"): 1.0,
        ("hookseal_attempts_total", "gone"): 1.0,
        ("hookseal_attempts_total", "timeout"): 0.0,
        ("hookseal_attempt_duration_seconds_count", None): 3.0,
        ("hookseal_time_to_first_attempt_seconds_count", None): 3.0,
        ("hookseal_held_total", "secret"): 1.0,
        ("hookseal_endpoints_disabled_total", None): 1.0,
        ("hookseal_dead_letters_total", None): 0.0,
        ("hookseal_leases_lost_total", None): 0.0,
        ("hookseal_claims_failed_total", None): 0.0,
        ("hookseal_in_flight", None): 0.0,
        ("hookseal_secret_cache_misses_total", None): 3.0,
        ("hookseal_secret_cache_entries", None): 3.0,
        ("hookseal_ready", "postgresql"): 1.0,
        ("hookseal_ready", "redis"): 1.0,
        ("hookseal_ready", "schema"): 1.0,
        ("hookseal_ready", "secrets"): 1.0,
        **{("hookseal_ready", f"loop_{name}"): 1.0 for name in LOOPS},
        ("hookseal_master_key_records", f"{key_id} active"): 6.0,
        ("hookseal_plaintext_rows", None): 0.0,
        ("hookseal_workers_live", None): 1.0,
        ("hookseal_due", None): 0.0,
    }
    assert expected == {key: found.get(key) for key in expected}
    assert 0 <= found["hookseal_loop_lag_seconds", None] < 10
    labels = {label for _, label in found if label is not None}
    assert [] == [each for each in labels for ring in rings if each in {ring.tenant_id, ring.endpoint_id}]


async def test_only_the_leader_reports_the_installation(world: World) -> None:
    """Of two workers only the leader reports the figures of the whole installation."""
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(world.worker()) for _ in range(2)]

        async def one() -> bool:
            return [2.0] == [
                found[key]
                for each in workers
                if (key := ("hookseal_workers_live", None)) in (found := await each.figures())
            ]

        await eventually(one)
