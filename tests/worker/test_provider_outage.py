"""A whole worker whose secrets are at a provider outside PostgreSQL, while that is away."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.core.why import explain
from hookseal.dispatcher.store.delivery_queries import facts, show
from hookseal.ground.clock import SystemClock
from hookseal.ground.pointer import Pointer
from hookseal.operations.move_secrets import move_endpoint, move_own
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.kms.keys import key_wrapper
from hookseal.secrets.kms.wrapped import KmsKey, KmsSettings
from tests.doubles.faulty_proxy import FaultyProxy, Refusal, faulty_proxy
from tests.doubles.openbao import ROOT_TOKEN, as_root, openbao
from tests.doubles.providers import openbao_access, outside
from tests.doubles.stored import MASTER_KEY_TEXT, keyring
from tests.secrets.kms_sites import openbao_server
from tests.worker.fleet import Worker
from tests.worker.test_waiting_deliveries import waiting
from tests.worker.waiting import eventually, eventually_equals
from tests.worker.world import Receiver, World, held

SETTINGS = {"SECRETS_PROVIDER": "openbao", "SECRETS_CACHE_TTL_SECONDS": "0"}
_TRIES = 5
SEALED = Refusal(status=503, body=b'{"errors":["Vault is sealed"]}')


@pytest.mark.req("SEC-18")
@pytest.mark.req("SEC-07", part="whole")
async def test_a_provider_outage_holds_its_deliveries_only(world: World, receiver: Receiver) -> None:
    """While the provider is sealed its deliveries wait unspent and others arrive; then they go out by themselves."""
    moved = (await world.endpoint(f"{receiver.base_url}/hook")).pointer
    await world.endpoint(f"{receiver.base_url}/other", tenant="globex")
    async with at_openbao(world, moved) as (proxy, settings), world.worker(**settings) as worker:
        await world.deliver()
        cause = f"OpenBao at {proxy.url} is sealed: unseal it"
        held = list[Ring]()
        for _ in range(_TRIES):  # on a busy machine the time of an attempt may end before the answer comes
            proxy.fault = SEALED
            held = [(await world.publish())[0] for _ in range(3)]
            await waiting(world, 3, "secret")
            if (await world.installation.delivery(held[0]))["last_error"].startswith(cause):
                break
            proxy.fault = None
            await world.probe_held()
            await world.delivered(*held)
        await world.deliver("globex")
        rows = [await world.installation.delivery(ring) for ring in held]
        assert [(0, 0)] * 3 == [(row["attempts"], row["budget_spent"]) for row in rows]
        assert 200 == (await worker.get("/livez"))[0]
        await _say_sealed(world, worker, held, cause)
        proxy.fault = None
        await world.probe_held()
        await world.delivered(*held)
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
        await world.probe_held()
        await world.delivered(*parked)


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
            await world.deliver()
            await written(server.url)
            await as_root(server.url, "POST", "auth/token/revoke", {"token": first})
            await world.delivered(*[(await world.publish())[0] for _ in range(6)])


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

    async def said() -> bool:  # on a busy machine a probe may have timed out: the next one says the cause again
        rows = [await world.installation.delivery(ring) for ring in held]
        async with world.pool.acquire() as one:
            texts = [explain(await facts(one, ring.delivery_id)).text for ring in held]
        return all(row["last_error"].startswith(cause) for row in rows) and all(cause in text for text in texts)

    await eventually(said)

    async def checked() -> tuple[int, str]:
        status, answer = await worker.get("/readyz")
        return status, answer["checks"]["secrets"]

    await eventually_equals((503, "sealed"), checked)
    said_in_log = {line["event"] for line in worker.log if line.get("reason", "").startswith(cause)}
    assert {"delivery.waiting", "check.failed"} <= said_in_log
    assert ROOT_TOKEN not in worker.log_file.read_text()


# A KMS keeps the master key: a worker asks it once, at its start, and never afterwards.


async def wrapped(address: str) -> dict[str, str]:
    """Return the settings of a KMS that has wrapped the master key of the tests."""
    await as_root(address, "POST", "sys/mounts/transit", {"type": "transit"})
    await as_root(address, "POST", "transit/keys/hookseal", {})
    settings = KmsSettings(
        key=KmsKey.parse("openbao:transit/hookseal"), installation="tests", openbao=openbao_server(address)
    )
    async with key_wrapper(settings, clock=SystemClock()) as wrapper:
        made = await wrapper.wrap(MasterKey.parse(MASTER_KEY_TEXT, variable="of the tests"))
    return {
        "SECRETS_MASTER_KEY": "",
        "SECRETS_MASTER_KEY_WRAPPED": str(made),
        "SECRETS_KMS": str(settings.key),
        "SECRETS_KMS_INSTALLATION": settings.installation,
        "BAO_ADDR": address,
        "BAO_TOKEN": ROOT_TOKEN,
    }


@pytest.mark.req("SEC-25")
async def test_a_worker_asks_the_kms_only_at_its_start(world: World, receiver: Receiver) -> None:
    """While the KMS hangs, deliveries are signed, and a process that was killed starts again with the keys."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with openbao() as kms:
        settings = await wrapped(kms.url)
        async with world.worker(HOOKSEAL_PROCESSES="2", **settings) as worker:
            kms.freeze()
            try:
                killed = worker.ready["processes"][0]["pid"]
                _shows_nothing(killed, settings["SECRETS_MASTER_KEY_WRAPPED"])
                os.kill(killed, signal.SIGKILL)
                await eventually(lambda: _is_replaced(worker))
                await world.delivered(*[(await world.publish())[0] for _ in range(4)])
            finally:
                kms.thaw()


async def _is_replaced(worker: Worker) -> bool:
    figures = await worker.figures()
    restarts = figures.get(("hookseal_process_restarts_total", "killed"))
    return restarts == 1.0 and (await worker.get("/readyz"))[0] == 200 and figures["hookseal_processes", None] == 2.0


def _shows_nothing(pid: int, wrapped_key: str) -> None:
    """Fail if the environment or the arguments of a process have the key, or what unwraps it."""
    shown = Path(f"/proc/{pid}/cmdline").read_bytes()
    try:
        shown += Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:  # it belongs to root, so another user cannot read it
        assert os.geteuid() != 0
    assert [] == [
        text for text in (MASTER_KEY_TEXT, ROOT_TOKEN, wrapped_key, "BAO_", "SECRETS_") if text.encode() in shown
    ]
