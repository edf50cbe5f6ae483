"""A whole worker whose secrets are at a provider outside PostgreSQL, while that is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.core.why import explain
from hookseal.dispatcher.store.delivery_queries import facts, show
from hookseal.ground.pointer import Pointer
from hookseal.operations.move_secrets import move_endpoint, move_own
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.ref import Provider
from tests.doubles.faulty_proxy import FaultyProxy, Refusal, faulty_proxy
from tests.doubles.openbao import ROOT_TOKEN, as_root, openbao
from tests.doubles.providers import openbao_access, outside
from tests.doubles.stored import keyring
from tests.secrets.openbao.test_login import approle
from tests.worker.test_held_end_to_end import waiting
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World, held

SETTINGS = {"SECRETS_PROVIDER": "openbao", "SECRETS_CACHE_TTL_SECONDS": "0"}
SEALED = Refusal(status=503, body=b'{"errors":["Vault is sealed"]}')


@pytest.mark.req("SEC-18")
@pytest.mark.req("SEC-07", part="whole")
async def test_a_provider_outage_holds_its_deliveries_only(world: World, receiver: Receiver) -> None:
    """While the provider is sealed its deliveries wait unspent and others arrive; then they go out by themselves."""
    moved = (await world.endpoint(f"{receiver.base_url}/hook")).pointer
    await world.endpoint(f"{receiver.base_url}/other", tenant="globex")
    async with at_openbao(world, moved) as (proxy, settings), world.worker(**settings) as worker:
        await world.state((await world.publish())[0], "delivered")
        proxy.fault = SEALED
        held = [(await world.publish())[0] for _ in range(3)]
        await waiting(world, 3, "secret")
        await world.state((await world.publish("globex"))[0], "delivered")
        rows = [await world.installation.delivery(ring) for ring in held]
        assert [(0, 0)] * 3 == [(row["attempts"], row["budget_spent"]) for row in rows]
        assert 200 == (await worker.get("/livez"))[0]
        await _say_sealed(world, worker, held, f"OpenBao at {proxy.url} is sealed: unseal it")
        proxy.fault = None
        await world.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
        for ring in held:
            await world.state(ring, "delivered")
    [attempt] = await world.installation.attempts(held[0])
    assert ["openbao"] == [ref.partition(":")[0] for ref in attempt["signed_by"]]


@pytest.mark.req("SEC-07", part="lanes")
@pytest.mark.req("DEL-09")
async def test_a_lane_behind_a_refused_secret_says_what_holds_it(world: World, receiver: Receiver) -> None:
    """What waited for room when the secret was refused says so: in `show`, in the metrics, and then it is delivered."""
    moved = (await world.endpoint(f"{receiver.base_url}/hook", timeout_ms=15_000)).pointer
    await world.pool.execute("UPDATE hookseal.endpoints SET concurrency = 1")
    in_flight = asyncio.Event()
    receiver.answers["/hook"] = held(in_flight)
    async with at_openbao(world, moved) as (proxy, settings), world.worker(**settings) as worker:
        first = (await world.publish())[0]
        await receiver.wait_for(1)
        parked = [(await world.publish())[0] for _ in range(3)]
        await waiting(world, 3, "concurrency")
        proxy.fault = SEALED
        in_flight.set()
        await world.state(first, "delivered")

        async def shown() -> bool:
            rows = [await show(world.pool, ring.delivery_id) for ring in parked]
            return all(row["waiting_for"] == "secret" and "is sealed" in row["last_error"] for row in rows)

        await eventually(shown)
        assert 2 == await world.pool.fetchval(
            "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = 'concurrency'"
        )

        async def measured() -> bool:
            return 3.0 == (await worker.figures()).get(("hookseal_waiting", "secret"))

        await eventually(measured)
        proxy.fault = None
        await world.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
        for ring in parked:
            await world.state(ring, "delivered")


@pytest.mark.req("SEC-18")
async def test_processes_read_a_replaced_token_file(world: World, receiver: Receiver, tmp_path: Path) -> None:
    """An agent replaces the file of the token and the old token ends: each process goes on with the new one."""
    file = tmp_path / "token"

    async def written(address: str) -> str:
        made = await as_root(address, "POST", "auth/token/create", {"policies": ["root"], "explicit_max_ttl": "40s"})
        token: str = made["auth"]["client_token"]
        file.write_text(token)
        file.chmod(0o600)
        return token

    async with openbao() as server:
        await _moved_endpoint(world, receiver, server.url)
        first = await written(server.url)
        settings = SETTINGS | {"BAO_ADDR": server.url, "BAO_TOKEN_FILE": str(file), "HOOKSEAL_PROCESSES": "2"}
        async with world.worker(**settings):
            await world.state((await world.publish())[0], "delivered")
            await written(server.url)
            await as_root(server.url, "POST", "auth/token/revoke", {"token": first})
            for ring in [(await world.publish())[0] for _ in range(6)]:
                await world.state(ring, "delivered")


@pytest.mark.req("SEC-18")
async def test_a_secret_id_of_one_use_serves_a_worker_beyond_the_time_of_its_token(
    world: World, receiver: Receiver
) -> None:
    """With a secret id of one use and a token of three seconds, deliveries go on after twice as long."""
    async with openbao() as server:
        await _moved_endpoint(world, receiver, server.url)
        await as_root(
            server.url, "PUT", "sys/policies/acl/all", {"policy": 'path "secret/*" { capabilities = ["read"] }'}
        )
        limits = {"token_ttl": "3s", "token_max_ttl": "1h", "secret_id_num_uses": 1, "token_policies": ["all"]}
        role = await approle(server.url, "worker", **limits)
        settings = SETTINGS | {
            "BAO_ADDR": server.url,
            "BAO_ROLE_ID": role.role_id,
            "BAO_SECRET_ID": role.secret_id.reveal().decode(),
        }
        async with world.worker(**settings):
            ends = time.monotonic() + 7.0  # the clock of OpenBao is real
            while time.monotonic() < ends:
                await world.state((await world.publish())[0], "delivered")


@asynccontextmanager
async def at_openbao(world: World, moved: Pointer) -> AsyncIterator[tuple[FaultyProxy, dict[str, str]]]:
    """Move the endpoint's secret, and those of the installation, there; give the way there, and a worker's settings."""
    async with openbao() as server, faulty_proxy(server.url) as proxy:
        await _move(world, moved, server.url)
        yield proxy, SETTINGS | {"BAO_ADDR": proxy.url, "BAO_TOKEN": ROOT_TOKEN}


async def _moved_endpoint(world: World, receiver: Receiver, address: str) -> None:
    """Add an endpoint whose secrets, and those of the installation, are kept by the OpenBao there."""
    await _move(world, (await world.endpoint(f"{receiver.base_url}/hook")).pointer, address)


async def _move(world: World, moved: Pointer, address: str) -> None:
    async with outside(world.pool, openbao_access(address, "hookseal")) as found, world.pool.acquire() as one:
        unlocked = await unlock(world.pool, Provider.OPENBAO, keyring(), outside=found)
        operator = Operator(connection=one, unlocked=unlocked, who="ada@desk")
        await move_endpoint(operator, moved.tenant_id, moved.endpoint_id, Provider.OPENBAO)
        await move_own(operator, Provider.OPENBAO)


async def _say_sealed(world: World, worker: Worker, held: Sequence[Ring], cause: str) -> None:
    """Require the cause wherever an operator looks: the delivery, `delivery why`, `/readyz` and the log."""
    for ring in held:
        row = await world.installation.delivery(ring)
        assert row["last_error"].startswith(cause)
        async with world.pool.acquire() as one:
            assert cause in explain(await facts(one, ring.delivery_id)).text
    status, answer = await worker.get("/readyz")
    assert (503, "sealed") == (status, answer["checks"]["secrets"])
    reasons = {line["event"]: line.get("reason", "") for line in worker.log}
    assert reasons["delivery.waiting"].startswith(cause)
    assert reasons["check.failed"].startswith(cause)
    assert ROOT_TOKEN not in worker.log_file.read_text()
