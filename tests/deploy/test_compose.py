"""The compose file restricts its services, matches the product, and begins an installation as written."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

import hookseal
from hookseal.config.load import load
from hookseal.embedded.server import Server, valkey_server
from tests.cli.command import DEADLINE_SECONDS
from tests.cli.listeners import closed_port
from tests.deploy.files import DEPLOY, WORKER_UID, compose, image, seconds
from tests.deploy.launch import ended, environment, running
from tests.servers import sibling
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("OPS-05", part="compose")

OURS = ("db-upgrade", "key-init", "worker", "api-grant", "api", "operator")
SECRETS = "/run/secrets"
# The program of Valkey's image that the probe calls: it takes its password from this variable.
_CLI = """#!{python}
import os, sys, redis
print(redis.Redis(port={port}, password=os.environ["REDISCLI_AUTH"]).execute_command(*sys.argv[1:]) and "PONG")
"""


def test_services_are_restricted() -> None:
    """Every container of hookseal has a read-only root, no capabilities or escalation, and a process limit."""
    for name in OURS:
        service = compose()["services"][name]
        assert service["read_only"] is True
        assert ["ALL"] == service["cap_drop"]
        assert ["no-new-privileges:true"] == service["security_opt"]
        assert service["pids_limit"] <= 256
        assert 0 == service["ulimits"]["core"]
        assert f"hookseal:{hookseal.__version__}" == service["image"]


def test_ports_are_published_on_loopback() -> None:
    """The worker's probes and the API are published on this machine only; the databases are in an internal network."""
    content = compose()
    ports = [port for service in content["services"].values() for port in service.get("ports", ())]

    assert ["127.0.0.1:8080:8080", "127.0.0.1:8071:8071"] == ports
    assert content["networks"]["inside"]["internal"] is True
    assert {"postgres": ["inside"], "valkey": ["inside"]} == {
        name: content["services"][name]["networks"] for name in ("postgres", "valkey")
    }


def test_a_stop_waits_for_the_drain() -> None:
    """The stop time-outs of the worker and the API are ten seconds longer than their drains."""
    for name in ("worker", "api"):
        service = compose()["services"][name]
        assert seconds(service["stop_grace_period"]) >= int(service["environment"]["HOOKSEAL_DRAIN_SECONDS"]) + 10


def test_valkey_never_evicts_a_ring() -> None:
    """A full Valkey refuses writes and drops no rings, and it stores them over a restart."""
    words = compose()["services"]["valkey"]["command"]

    assert {("--maxmemory-policy", "noeviction"), ("--appendonly", "yes")} <= set(pairwise(words))


def test_services_start_in_order() -> None:
    """Worker and API start once the servers are healthy, the schema exists and the keys and the right are created."""
    services = compose()["services"]
    order = {
        name: {other: how["condition"] for other, how in services[name]["depends_on"].items()}
        for name in ("db-upgrade", "key-init", "worker", "api-grant", "api")
    }
    healthy, done = "service_healthy", "service_completed_successfully"

    assert {
        "db-upgrade": {"postgres": healthy},
        "key-init": {"db-upgrade": done},
        "worker": {"postgres": healthy, "valkey": healthy, "key-init": done},
        "api-grant": {"key-init": done},
        "api": {"postgres": healthy, "valkey": healthy, "api-grant": done},
    } == order
    assert {"no"} == {services[name]["restart"] for name in ("db-upgrade", "key-init", "api-grant")}
    assert all("test" in services[name]["healthcheck"] for name in ("postgres", "valkey"))


def test_each_service_mounts_the_secrets_it_names() -> None:
    """A service mounts exactly the secrets that its variables name, and the script creates each of them."""
    content = compose()
    made = {Path(secret["file"]).name for secret in content["secrets"].values()}
    for name in OURS:
        service = content["services"][name]
        named = {value.rpartition("/")[2] for value in service["environment"].values() if value.startswith(SECRETS)}
        assert named == set(service["secrets"])
    assert made == set(_script_files())


def test_the_script_makes_valid_secrets_once(tmp_path: Path) -> None:
    """The script creates a master key and urls that are valid in production, and never overwrites a file.

    It also prints what root has to do.
    """
    folder = tmp_path / "secrets"
    first = _make_secrets(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    assert 0 == first.returncode
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    worker_environment = compose()["services"]["worker"]["environment"]
    loaded = load({name: value.replace(SECRETS, str(folder)) for name, value in worker_environment.items()})
    assert ("postgres:5432", "valkey:6379") == (loaded.database.address, loaded.redis.address)
    mine = {name for name, info in ((file.name, file.stat()) for file in folder.iterdir()) if info.st_mode & 0o077 == 0}
    assert {"owner_database_url", "worker_database_url", "api_database_url", "redis_url", "master_key"} == mine
    if os.geteuid() == 0:
        assert {WORKER_UID} == {(folder / name).stat().st_uid for name in mine}
    else:
        assert f"chown {WORKER_UID}:{WORKER_UID}" in first.stderr
    assert 0 != _make_secrets(folder).returncode
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


async def test_the_compose_project_begins_an_installation(own_postgres: Server, redis_url: str, tmp_path: Path) -> None:
    """The commands of the services, in order, begin an installation, and change nothing the second time.

    Then worker and API are ready, each with a database user that has only the rights of its role, and end with 0.
    """
    mounted = await _mounted(own_postgres.url, redis_url, tmp_path)
    port = closed_port()
    for _ in range(2):
        for name in ("db-upgrade", "key-init", "api-grant"):
            once = await ended(_words(name), _variables(name, mounted, port), tmp_path)
            assert 0 == once.code, once.err
    variables = _variables("worker", mounted, port)
    async with running(_words("worker"), variables, tmp_path) as (process, _):
        assert 0 == (await ended(image().healthcheck, variables, tmp_path)).code
        process.terminate()
        await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        assert 0 == process.returncode
    await require_api(mounted, tmp_path, own_postgres.url)


async def require_api(mounted: Path, folder: Path, owner_url: str) -> None:
    """Fail unless the API publishes, and refuses what needs a master key until it has one.

    The token is made as an operator makes it; the grant and the two variables are those of deploy/README.md.
    """
    port = closed_port()
    words = [*image().entrypoint, "token", "add", "--name", "a", "--tenant", "*", "--json"]
    made = await ended(words, _variables("operator", mounted, port), folder)
    headers = {"Authorization": f"Bearer {made.json['token']}"}
    without = _variables("api", mounted, port)
    with_key = without | {"SECRETS_PROVIDER": "db", "SECRETS_MASTER_KEY_FILE": str(mounted / "master_key")}
    for variables, expected in ((without, (202, 403)), (with_key, (202, 201))):
        if variables is with_key:
            owner = await asyncpg.connect(owner_url)
            await owner.execute("GRANT hookseal_api TO hookseal_http")
            await owner.close()
        async with (
            running(_words("api"), variables, folder) as (process, ready),
            httpx.AsyncClient(base_url=ready["url"], headers=headers) as client,
        ):
            assert 0 == (await ended(image().healthcheck, variables, folder)).code
            message = {"eventType": "invoice.paid", "payload": {}}
            published = await client.post("/api/v1/app/acme/msg", json=message)
            added = await client.post("/api/v1/app/acme/endpoint", json={"url": "https://93.184.215.14/hooks"})
            assert expected == (published.status_code, added.status_code), added.text
            process.terminate()
            await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
            assert 0 == process.returncode


async def test_valkey_requires_the_password_of_its_secret(tmp_path: Path) -> None:
    """Valkey, started as written, refuses a client without the password; the worker's url and the probe have it."""
    made = tmp_path / "made"
    assert 0 == _make_secrets(made).returncode
    service, port = compose()["services"]["valkey"], closed_port()
    _, *words = [word.replace(f"{SECRETS}/valkey_conf", str(made / "valkey.conf")) for word in service["command"]]
    given = urlsplit((made / "redis_url").read_text().strip())
    url = given._replace(netloc=f"{given.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()
    (tmp_path / "valkey-cli").write_text(_CLI.format(python=sys.executable, port=port))
    (tmp_path / "valkey-cli").chmod(0o755)
    _, probe = service["healthcheck"]["test"]
    probe = probe.replace("$$", "$").replace(f"{SECRETS}/valkey_conf", str(made / "valkey.conf"))
    path = f"{tmp_path}:{os.environ['PATH']}"

    running = await asyncio.create_subprocess_exec(
        *(valkey_server(), *words, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:

        async def answers() -> bool:
            with suppress(RedisConnectionError):
                async with Redis.from_url(url) as client:
                    return bool(await client.ping())
            return False

        await eventually(answers)
        async with Redis.from_url(f"redis://127.0.0.1:{port}/0") as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.ping()
        probing = await asyncio.create_subprocess_exec("sh", "-c", probe, env={"PATH": path})
        assert 0 == await probing.wait()
    finally:
        running.terminate()
        await running.wait()


async def test_failed_keys_stop_the_start(redis_url: str, tmp_path: Path) -> None:
    """Only keys that exist already are no error: a database that does not answer is reported as such."""
    mounted = await _mounted(None, redis_url, tmp_path)
    once = await ended(_words("key-init"), _variables("key-init", mounted, closed_port()), tmp_path)

    assert once.code not in {0, 4}
    assert "does not answer" in once.err


def _words(name: str) -> list[str]:
    """Return what Compose would start: a service with its own entry point ignores the command of the image."""
    service: dict[str, Any] = compose()["services"][name]
    own = service.get("entrypoint")
    entrypoint = image().entrypoint if own is None else [word.replace("$$", "$") for word in own]
    return [*entrypoint, *service.get("command", image().command if own is None else [])]


def _variables(name: str, mounted: Path, port: int) -> dict[str, str]:
    given: Mapping[str, str] = compose()["services"][name]["environment"]
    return environment(given, secrets=SECRETS, mounted=mounted, port=port)


async def _mounted(server_url: str | None, redis_url: str, folder: Path) -> Path:
    """Return a folder with the secrets that the script creates, with the addresses of this test's servers."""
    made, mounted = folder / "made", folder / "mounted"
    assert 0 == _make_secrets(made).returncode
    mounted.mkdir()
    if server_url is None:
        server_url = f"postgresql://nobody@127.0.0.1:{closed_port()}/postgres"
    else:
        await _prepare(server_url, (made / "roles.sql").read_text())
    server = urlsplit(server_url)
    texts = {
        "owner_database_url": sibling(server_url, "composed"),
        "redis_url": redis_url,
        "master_key": (made / "master_key").read_text(),
    }
    for name in ("worker_database_url", "api_database_url"):
        user = urlsplit((made / name).read_text().strip()).netloc.rpartition("@")[0]
        place = f"{user}@{server.netloc.rpartition('@')[2]}"
        texts[name] = server._replace(netloc=place, path="/composed").geturl()
    for name, text in texts.items():
        (mounted / name).write_text(text)
        (mounted / name).chmod(0o400)
    return mounted


async def _prepare(server_url: str, statements: str) -> None:
    """Do what the image of PostgreSQL does with an empty volume."""
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute("CREATE DATABASE composed")
        await connection.execute(statements)
    finally:
        await connection.close()


def _make_secrets(folder: Path) -> "subprocess.CompletedProcess[str]":
    script = DEPLOY / "compose-secrets.sh"
    return subprocess.run(["sh", script, folder], capture_output=True, text=True, check=False)


def _script_files() -> set[str]:
    urls = {"owner_database_url", "worker_database_url", "api_database_url", "redis_url"}
    return {"owner_password", "roles.sql", "valkey.conf", "master_key"} | urls
