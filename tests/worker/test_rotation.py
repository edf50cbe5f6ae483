"""Whole workers while secrets are rotated, by command and by schedule, and the record of which version signed what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint import rotation
from hookseal.operations.operator import Operator
from hookseal.secrets.core.ref import SecretRef
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from tests.cli.command import hookseal
from tests.doubles import moved_clock
from tests.doubles.logbook import audited
from tests.worker.environment import environment
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, World, held, status

TENANT = TenantId("acme")
EVENTS_PER_SECOND = 40  # enough to be in the middle of every change, and little work


def verifies(secret: str, got: Received) -> bool:
    """Return whether the public library verifies the request with that secret alone."""
    try:
        Webhook(secret).verify(got.body, got.headers)
    except WebhookVerificationError:
        return False
    return True


@asynccontextmanager
async def traffic(world: World) -> AsyncIterator[None]:
    """Publish events at a steady rate during the block."""
    stopping = asyncio.Event()

    async def publish() -> None:
        while not stopping.is_set():  # a cancellation could be lost: see `worker.run.cancelled`
            await world.publish()
            await asyncio.sleep(1 / EVENTS_PER_SECOND)  # the rate

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        stopping.set()
        await publishing


async def rotated(world: World, endpoint: EndpointId, *, overlap_seconds: int) -> RotationResult:
    """Rotate; without an overlap return when the revocation is complete, as the command does."""
    async with world.pool.acquire() as connection:
        operator = Operator(connection=connection, unlocked=world.installation.unlocked, who="ada@desk")
        wanted = RotationRequest(
            tenant_id=TENANT,
            endpoint_id=endpoint,
            overlap_seconds=overlap_seconds,
            secret=generate_signing_secret(),
        )
        answer = await rotation.rotate_secret(operator, wanted)
        if overlap_seconds == 0:
            await rotation.wait_until_complete(
                operator.connection,
                tenant=TENANT,
                endpoint_id=endpoint,
                generation=answer.generation,
                clock=SystemClock(),
                report=lambda _: None,
            )
    return answer


def text(answer: RotationResult) -> str:
    assert answer.secret is not None
    return answer.secret.reveal().decode()


async def wait_for_more(receiver: Receiver, number: int) -> None:
    """Return when that many more requests have arrived."""
    await receiver.wait_for(len(receiver.received) + number)


async def nothing_left(world: World) -> bool:
    every = "SELECT bool_and(state = 'delivered') FROM hookseal.deliveries"
    return bool(await world.pool.fetchval(every))


async def arrived_once_at_the_first_attempt(world: World, receiver: Receiver) -> None:
    """Fail unless every event arrived once at the receiver, and every first attempt succeeded."""
    rows = await world.pool.fetch(
        "SELECT e.id::text, d.state, d.attempts, a.number, a.outcome"
        "  FROM hookseal.events AS e"
        "  LEFT JOIN hookseal.deliveries AS d ON d.tenant_id = e.tenant_id AND d.event_id = e.id"
        "  LEFT JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id"
    )
    assert {("delivered", 1, 1, "delivered")} == {tuple(row)[1:] for row in rows}
    ids = await world.pool.fetch("SELECT id::text FROM hookseal.deliveries")
    assert len(rows) == len(ids)
    assert sorted(row["id"] for row in ids) == sorted(got.headers["webhook-id"] for got in receiver.received)


@pytest.mark.req("SEC-10", "SEC-09")
async def test_no_request_fails_during_a_rotation(world: World, receiver: Receiver) -> None:
    """During the overlap each request verifies with both secrets; after a revocation only with the newest."""
    added = await world.endpoint(f"{receiver.base_url}/hook", timeout_ms=15_000)
    endpoint, first = added.pointer.endpoint_id, added.secret.reveal().decode()
    async with world.worker(), world.worker():
        async with traffic(world):
            await wait_for_more(receiver, 20)
            second = text(await rotated(world, endpoint, overlap_seconds=3600))
            await wait_for_more(receiver, 60)
            overlapping = len(receiver.received)
            third = text(await rotated(world, endpoint, overlap_seconds=0))
            revoked = len(receiver.received)
            await wait_for_more(receiver, 40)
        await eventually(lambda: nothing_left(world))

    await arrived_once_at_the_first_attempt(world, receiver)
    before, after = receiver.received[:overlapping], receiver.received[revoked:]
    assert all(verifies(first, got) for got in before)
    both = [got for got in before if verifies(second, got)]
    assert len(both) >= 30
    assert all(2 == len(got.headers["webhook-signature"].split()) for got in both)
    assert all(verifies(third, got) for got in after)
    assert not any(verifies(first, got) or verifies(second, got) for got in after)


# Scheduled rotation by whole workers, on a database with a moved clock: announced, done once, despite a kill.


HALF_A_DAY = timedelta(hours=12, seconds=1)


@pytest.fixture
async def with_moved_clock(world: World) -> World:
    """Return an installation whose workers use a moved clock."""
    await moved_clock.make_for_all(world.database_url)
    return world


async def wait_for_log_line(worker: Worker, event: str) -> dict[str, Any]:
    return await eventually(lambda: next((line for line in worker.log if line["event"] == event), None))


async def scheduled(world: World, receiver: Receiver) -> str:
    """Add an endpoint that is rotated every day, and return its id."""
    added = await world.endpoint(f"{receiver.base_url}/hook")
    await world.pool.execute("UPDATE hookseal.endpoints SET rotate_every_days = 1")
    return added.pointer.endpoint_id


async def announced(world: World) -> None:
    """Let a worker announce the rotation, and let half a day pass."""
    await moved_clock.move(world.pool, HALF_A_DAY)
    async with world.worker() as worker:
        await wait_for_log_line(worker, "secret.rotation_announced")
    await moved_clock.move(world.pool, HALF_A_DAY)


async def actions(world: World) -> list[str]:
    """Return the audited actions of the tenant, in order."""
    return [row["action"] for row in await audited(world.pool)]


@pytest.mark.req("SEC-11")
async def test_a_scheduled_rotation_is_announced_and_made(with_moved_clock: World, receiver: Receiver) -> None:
    """A worker announces the rotation in log and audit log, rotates when it is due, then signs with both secrets."""
    endpoint_id = await scheduled(with_moved_clock, receiver)
    await announced(with_moved_clock)
    async with with_moved_clock.worker(SECRETS_ROTATION_OVERLAP_SECONDS="0") as worker:
        line = await wait_for_log_line(worker, "secret.rotated_by_schedule")
        await with_moved_clock.deliver()
    assert (endpoint_id, 2) == (line["endpoint_id"], line["generation"])
    assert 2 == (await receiver.wait_for(1)).headers["webhook-signature"].count("v1,")
    assert ["endpoint.added", "secret.rotation_announced", "secret.rotated"] == await actions(with_moved_clock)
    assert {f"worker/{worker.worker_id}"} == {
        row["who"] for row in await audited(with_moved_clock.pool) if row["action"] == "secret.rotated"
    }


@pytest.mark.req("SEC-11")
async def test_a_kill_during_a_rotation_changes_nothing(with_moved_clock: World, receiver: Receiver) -> None:
    """If a worker is killed during a rotation, nothing is changed; of two later workers one rotates, once."""
    await scheduled(with_moved_clock, receiver)
    await announced(with_moved_clock)
    async with AsyncExitStack() as stack:
        async with with_moved_clock.pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT FROM hookseal.audit_heads WHERE tenant_id = 'acme' FOR UPDATE")
            doomed = await stack.enter_async_context(with_moved_clock.worker())
            await _wait_for_the_last_statements(with_moved_clock)
            await doomed.kill()
        await with_moved_clock.pool.execute(
            "UPDATE hookseal.control SET until = now() WHERE name = 'outbox'"
        )  # its lease has expired
        assert ["endpoint.added", "secret.rotation_announced"] == await actions(with_moved_clock)
        for _ in range(2):
            await stack.enter_async_context(with_moved_clock.worker())

        async def rotated() -> bool:
            return "secret.rotated" in await actions(with_moved_clock)

        await eventually(rotated)
    assert ["endpoint.added", "secret.rotation_announced", "secret.rotated"] == await actions(with_moved_clock)
    assert [1, 2] == [
        row["version"]
        for row in await with_moved_clock.pool.fetch(
            "SELECT version FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY version"
        )
    ]


async def _wait_for_the_last_statements(world: World) -> None:
    """Return when a session waits for the end of the audit log, the last step of a rotation."""

    async def look() -> bool:
        found = await world.pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock' AND query LIKE '%audit_heads AS head%')"
        )
        return bool(found)

    await eventually(look)


# The versions that signed an attempt of a whole worker are recorded, and commands show them.


PASSED = "UPDATE hookseal.deliveries SET next_attempt_at = now(), rung_at = NULL WHERE id = $1::text::uuid"


async def command(world: World, *arguments: str) -> dict[str, Any]:
    """Run the command on the installation, and return what it printed."""
    ended = await hookseal(*arguments, "--json", **environment(world.database_url, world.redis_url))
    assert 0 == ended.code, ended.out + ended.err
    return ended.json


async def begun(world: World, receiver: Receiver, path: str = "/hook") -> tuple[tuple[str, ...], list[str]]:
    """Add an endpoint; return the options that name it, and the references of its first four versions."""
    pointer = (await world.endpoint(receiver.base_url + path)).pointer
    first = SecretRef.parse(pointer.secret_ref or "")
    refs = [f"{first.provider}:{first.tenant}:{first.name}:{version}" for version in range(1, 5)]
    return ("--tenant", "acme", "--endpoint", pointer.endpoint_id), refs


async def signed(world: World, ring: Ring) -> list[list[str]]:
    """Return the versions that signed each attempt of the delivery, in order."""
    return [row["signed_by"] for row in await world.installation.attempts(ring)]


async def delivered(world: World) -> Ring:
    return await world.deliver()


async def listed(world: World, ref: str, *options: str) -> list[str]:
    """Return the deliveries that the version signed, newest first."""
    page = await command(world, "delivery", "list", "--signed-by", ref, *options)
    assert page["next_cursor"] is None
    return [item["delivery_id"] for item in page["items"]]


async def version_states(world: World, of: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Return for each version: state, whether it signs, claims in flight, attempts, whether it is needed."""
    items = (await command(world, "secret", "versions", *of))["items"]
    wanted = ("state", "signs", "claims_in_flight", "attempts", "needed")
    return [tuple(item[name] for name in wanted) for item in items]


@pytest.mark.req("SEC-23")
async def test_an_overlap_records_both_versions(world: World, receiver: Receiver) -> None:
    """During an overlap an attempt records both versions, the current one first; before and after it one."""
    of, [one, two, *_] = await begun(world, receiver)
    async with world.worker():
        before = await delivered(world)
        await command(world, "endpoint", "rotate", *of, "--overlap", "3600")
        within = await delivered(world)
        overlapping = await version_states(world, of)
        await command(world, "endpoint", "end-overlap", *of)
        after = await delivered(world)

    assert [[one]] == await signed(world, before)
    assert [[two, one]] == await signed(world, within)
    assert [[two]] == await signed(world, after)
    assert [within.delivery_id, before.delivery_id] == await listed(world, one)
    assert [after.delivery_id, within.delivery_id] == await listed(world, two, *of)
    assert [("previous", True, 0, 2, True), ("active", True, 0, 1, True)] == overlapping
    assert [("retired", False, 0, 2, False), ("active", True, 0, 2, True)] == await version_states(world, of)


@pytest.mark.req("SEC-23")
async def test_each_attempt_records_its_own_versions(world: World, receiver: Receiver) -> None:
    """A retry and a replay are signed with the versions of their time; each attempt keeps the record of its own."""
    receiver.answers["/hook"] = status(500)
    of, [one, two, three, _] = await begun(world, receiver)
    async with world.worker():
        [ring] = await world.publish()
        await world.tried(ring)
        await command(world, "endpoint", "rotate", *of, "--overlap", "0")
        receiver.answers["/hook"] = status(204)
        await world.pool.execute(PASSED, ring.delivery_id)
        await world.state(ring, "delivered")
        await command(world, "endpoint", "rotate", *of, "--overlap", "3600")
        await command(world, "delivery", "replay", ring.delivery_id)
        await receiver.wait_for(3)
        await world.state(ring, "delivered")
        replayed = await command(world, "delivery", "replay", ring.delivery_id, "--new-id")
        await receiver.wait_for(4)
        again = Ring(tenant_id=ring.tenant_id, endpoint_id=ring.endpoint_id, delivery_id=replayed["delivery_id"])
        await world.state(again, "delivered")

    assert [[one], [two], [three, two]] == await signed(world, ring)
    assert [[three, two]] == await signed(world, again)
    both = [again.delivery_id, ring.delivery_id]
    assert [both[1:], both, both] == [await listed(world, ref) for ref in (one, two, three)]


@pytest.mark.req("SEC-23")
async def test_claims_in_flight_need_their_versions(world: World, receiver: Receiver) -> None:
    """Claims in flight need their versions until the lease ends; then the unknown attempt keeps their references."""
    answer = asyncio.Event()
    receiver.answers["/hook"] = held(answer)
    of, [one, two, three, _] = await begun(world, receiver)
    await command(world, "endpoint", "rotate", *of, "--overlap", "3600")
    async with world.worker() as worker:
        [ring] = await world.publish()
        await receiver.wait_for(1)
        await worker.kill()
    answer.set()
    await command(world, "endpoint", "rotate", *of, "--overlap", "0", "--no-wait")

    assert [[ring.delivery_id]] * 2 == [await listed(world, ref) for ref in (one, two)]
    assert [] == await listed(world, three)
    holding = ("retired", False, 1, 0, True)
    assert [holding, holding, ("active", True, 0, 0, True)] == await version_states(world, of)

    async with world.worker():
        await world.expire_leases()
        await world.state(ring, "delivered")
    assert ["unknown", "delivered"] == [row["outcome"] for row in await world.installation.attempts(ring)]
    assert [[two, one], [three]] == await signed(world, ring)
    assert [[ring.delivery_id]] * 3 == [await listed(world, ref) for ref in (one, two, three)]
    over = ("retired", False, 0, 1, False)
    assert [over, over, ("active", True, 0, 1, True)] == await version_states(world, of)
