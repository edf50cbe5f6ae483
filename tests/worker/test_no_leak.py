"""Workers that log all they can, through every outcome and failure, leave no canary where it must not be."""

import asyncio
import copy
import os
import pickle
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.embedded.folders import write_private
from hookseal.embedded.server import Server
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.worker.resources import opened
from tests.dispatcher.http.test_transport import request_to
from tests.doubles.replaced import replace
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.worker import leak_places
from tests.worker.canary import search
from tests.worker.environment import settings
from tests.worker.fleet import NEW_PYTHON, Worker
from tests.worker.leaking import (
    ACME,
    DELIVERED,
    DISABLED,
    HELD,
    HMAC,
    NEWER,
    OWN,
    TOKEN,
    TRIED,
    WAITING,
    Scene,
    all_canaries,
    scene,
)
from tests.worker.verbose_process import verbose_settings
from tests.worker.waiting import PATIENCE_SECONDS, eventually
from tests.worker.world import Receiver, World, held, world

INITECH = TenantId("initech")
JOURNAL = "SELECT pg_current_wal_insert_lsn()::text"
IS_AT_ITS_END: Mapping[str, Callable[[asyncpg.Record], bool]] = {
    DELIVERED: lambda row: row["state"] == "delivered",
    TRIED: lambda row: row["state"] == "pending" and row["attempts"] == 1,
    DISABLED: lambda row: row["state"] == "failed",
    WAITING: lambda row: row["state"] == "pending" and row["waiting_for"] == "secret",
    HELD: lambda row: row["state"] == "pending" and str(row["last_error"]).startswith("hookseal could not send it"),
}


def private(installed: World) -> dict[str, str]:
    """Return settings that name private files, so that the environment of a worker contains no secret."""
    values = {
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
        "DATABASE_URL": installed.database_url,
        "REDIS_URL": installed.redis_url,
    }
    for name, value in values.items():
        write_private(installed.folder / name, value)
    return dict.fromkeys(values, "") | {f"{name}_FILE": str(installed.folder / name) for name in values}


def arguments_and_environment(worker: Worker) -> dict[str, bytes]:
    """Return the arguments of the process, and its environment if the kernel lets this user read it."""
    shown = {}
    for name in ("cmdline", "environ"):
        try:
            shown[name] = Path(f"/proc/{worker.pid}/{name}").read_bytes()
        except OSError:  # a hardened process refuses this to all but root
            shown[name] = b""
    return shown


async def wait_for_end(installed: World, ring: Ring, end: str) -> None:
    async def look() -> bool:
        row = await installed.installation.delivery(ring)
        assert row["state"] != "dead_letter"
        return IS_AT_ITS_END[end](row)

    await eventually(look, within=2 * PATIENCE_SECONDS)


async def in_mid_delivery(installed: World, receiver: Receiver, path: str) -> tuple[Ring, asyncio.Event]:
    """Return a delivery whose request has arrived, and the event that lets it be answered."""
    answer = asyncio.Event()
    receiver.answers[path] = held(answer)
    endpoint = NewEndpoint(
        tenant_id=INITECH, url=receiver.base_url + path, event_types=(path[1:],), settings={"timeout_ms": 15_000}
    )
    await installed.installation.add(endpoint, HMAC, headers=OWN)
    before = len(receiver.received)
    [ring] = await installed.installation.deliveries(INITECH, event_type=path[1:])
    await receiver.wait_for(before + 1)
    return ring, answer


async def through_outages(installed: World, worker: Worker, receiver: Receiver, servers: tuple[Server, Server]) -> None:
    """Freeze PostgreSQL and then Redis during a delivery, then end every connection to PostgreSQL."""
    for number, server in enumerate(servers):
        ring, answer = await in_mid_delivery(installed, receiver, f"/outage{number}")
        server.freeze()
        try:
            answer.set()
            await worker.answers("/readyz", 503)
        finally:
            server.thaw()
        await wait_for_end(installed, ring, DELIVERED)
    ring, answer = await in_mid_delivery(installed, receiver, "/dropped")
    await installed.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    answer.set()
    await wait_for_end(installed, ring, DELIVERED)


async def stopped_in_mid_delivery(installed: World, worker: Worker, receiver: Receiver) -> bytes:
    """Stop the worker while a request is in flight; return what it printed after it became ready."""
    ring, answer = await in_mid_delivery(installed, receiver, "/stopped")
    worker.send(signal.SIGTERM)
    await worker.answers("/readyz", 503)
    answer.set()
    assert 0 == await worker.ended()
    await wait_for_end(installed, ring, DELIVERED)
    output = worker.process.stdout
    return b"" if output is None else await output.read()


async def written_by(
    installed: World, servers: tuple[Server, Server], receiver: Receiver, ends: Scene, *, journal: str
) -> dict[str, bytes]:
    """Run a worker through every end, outages and a stop; return all that it wrote anywhere."""
    _, redis = servers
    rings = await installed.publish()
    found = {f"before {key}": value for key, value in (await leak_places.keys(redis.url)).items()}
    loud = verbose_settings(installed.folder / "loud", worker=True)
    async with leak_places.monitored(redis) as heard:
        async with installed.worker(**loud, **private(installed)) as worker:
            found |= arguments_and_environment(worker)
            for ring in rings:
                await wait_for_end(installed, ring, ends.ends[ring.endpoint_id])
            found |= await leak_places.pages(worker.ready["health_url"])
            await through_outages(installed, worker, receiver, servers)
            found |= {f"after {page}": value for page, value in (await leak_places.pages(_url(worker))).items()}
            found["standard output"] = await stopped_in_mid_delivery(installed, worker, receiver)
        found["log"] = worker.log_file.read_bytes()
        found["ready"] = repr(worker.ready).encode()
    found["monitor"] = bytes(heard)
    found |= await leak_places.keys(redis.url)
    found |= await leak_places.tables(installed.pool)
    found |= await leak_places.files_of(installed.pool, journal)
    return found | {"dump": await leak_places.dump(installed.database_url)}


def _url(worker: Worker) -> str:
    return str(worker.ready["health_url"])


@pytest.mark.timeout(300)
@pytest.mark.req("SEC-15")
async def test_only_receivers_get_secrets(
    own_postgres: Server, own_valkey: Server, receiver: Receiver, tmp_path: Path
) -> None:
    """After deliveries to every end, outages and a stop during a delivery, only receivers have the secrets."""
    servers = (own_postgres, own_valkey)
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=4) as pool:
        journal = await pool.fetchval(JOURNAL)
        installed = await world(pool, own_postgres.url, own_valkey.url, tmp_path)
        async with scene(installed.installation, own_postgres.url, own_valkey.url) as ends:
            found = await written_by(installed, servers, receiver, ends, journal=journal)
            snippets = [row["snippet"] for row in await pool.fetch("SELECT snippet FROM hookseal.attempts")]

    assert [] == search(found, ends.canaries)
    # The run really logged, stored and sent enough that a leak would be found.
    read = (
        "log",
        "dump",
        "monitor",
        "cmdline",
        "/metrics",
        "secret_records as binary",
        "postgres.log",
    )
    assert all(found[name] for name in read), "a place was not read"
    assert any(name.startswith("journal") and value for name, value in found.items()), "the WAL was not read"
    assert 3 <= found["log"].count(b"RuntimeError: a fault of ours"), "tracebacks are missing in the log"
    assert b"signers = (Signer(db:acme:" in found["log"], "local variables are missing"
    assert b'"logger":"asyncio"' in found["log"], "other loggers are missing"
    assert b"ZPOPMIN" in found["monitor"]
    assert any("[masked]" in (snippet or "") for snippet in snippets), "no receiver repeated its request"
    got = [raw for listener in ends.listeners for raw in listener.requests]
    assert 10 < sum(TOKEN in raw for raw in got), "receivers did not get the header"


@pytest.mark.req("SEC-15")
async def test_an_abort_leaves_no_secret(world: World, receiver: Receiver) -> None:
    """A worker that aborts during a delivery writes no core file and no secret to its log."""
    async with world.worker(**verbose_settings(world.folder / "loud", worker=True), **private(world)) as worker:
        await in_mid_delivery(world, receiver, "/aborted")
        assert (0, 0) == resource.prlimit(worker.pid, resource.RLIMIT_CORE)
        worker.send(signal.SIGABRT)
        assert -signal.SIGABRT == await worker.ended()

    known = await all_canaries(world.installation, world.database_url, world.redis_url)
    assert [] == search({"log": worker.log_file.read_bytes()}, known)
    assert b"Fatal Python error: Aborted" in worker.log_file.read_bytes()
    assert [] == [file for file in Path.cwd().iterdir() if file.name.startswith("core")]


@pytest.mark.req("SEC-15")
async def test_settings_in_files_leave_no_trace(world: World) -> None:
    """With settings in files neither arguments nor environment contain a secret; variables are in the environment."""
    known = await all_canaries(world.installation, world.database_url, world.redis_url)
    async with world.worker(**NEW_PYTHON, **private(world)) as worker:
        from_files = arguments_and_environment(worker)
    assert [] == search(from_files, known)
    assert b"SECRETS_MASTER_KEY_FILE" in from_files["environ"] or os.geteuid() != 0
    async with world.worker(**NEW_PYTHON) as worker:
        shown = arguments_and_environment(worker)
    assert [] == search({"cmdline": shown["cmdline"]}, known)
    if os.geteuid() == 0:  # the exception that docs/guide/running.md names
        assert search({"environ": shown["environ"]}, known)


# Objects that contain a secret neither show it nor pass it on.


@pytest.mark.req("SEC-15")
async def test_no_object_of_a_worker_shows_a_secret(world: World) -> None:
    """Objects of a worker and of a command are shown, formatted, copied and pickled without their secrets."""
    added = await world.installation.add(
        NewEndpoint(tenant_id=ACME, url="https://receiver.example/x", event_types=("*",)), HMAC, headers=OWN
    )
    known = await all_canaries(world.installation, world.database_url, world.redis_url)
    asked = settings(world.database_url, world.redis_url)
    pointer = added.pointer
    wanted = RotationRequest(
        tenant_id=ACME, endpoint_id=EndpointId(pointer.endpoint_id), overlap_seconds=9, secret=NEWER, given=True
    )
    async with opened(asked, SystemClock(), structlog.get_logger()) as resources, world.pool.acquire() as connection:
        service = resources.unlocked.service
        operator = world.installation.operator(connection)
        async with service.signers(pointer) as signers, service.headers(pointer) as values:
            request = replace(request_to("https://receiver.example/x"), sealed_headers=values)
            rotated = await rotate_secret(operator, wanted)
            parts = [resources, resources.parts, resources.unlocked, resources.keyring, service, service._reader]
            parts += [service._reader._cache, resources.unlocked.integrity, operator, asked, asked.secrets]
            parts += [asked.database, asked.redis, added, wanted, rotated, request, values, *signers, *values.values()]
            shown = {f"{number} {type(part).__name__}": shown_by(part) for number, part in enumerate(parts)}

    assert [] == search(shown, known)
    [of_wanted] = [value for name, value in shown.items() if name.endswith(" RotationRequest")]
    assert b"SecretMaterial([masked])" in of_wanted


def shown_by(part: object) -> bytes:
    """Return everything that an object reveals: shown, formatted, logged, and pickled or copied if it allows that."""
    ways: tuple[Callable[[object], object], ...] = (
        repr,
        str,
        format,
        "{!r:.500}".format,
        "%s".__mod__,
        ascii,
        pickle.dumps,
        copy.copy,
        vars,
        lambda value: structlog.processors.JSONRenderer(default=repr)(None, "info", {"event": value}),
    )
    texts = []
    for way in ways:
        try:
            found = way(part)
        except Exception as refusal:  # noqa: BLE001 -- the error is searched as well
            found = refusal
        texts.append(found if isinstance(found, bytes) else repr(found).encode())
    return b"\n".join(texts)
