"""`hookseal check` tells by its exit code whether a worker is ready."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hookseal.cli.check import DEFAULT_HOST, DEFAULT_PORT, _own_url
from hookseal.config.variables import NAMES
from hookseal.worker.health import Check, Probes
from tests.cli.begun import Begun
from tests.cli.command import hookseal, python
from tests.cli.listeners import SOON_SECONDS, black_hole, closed_port, seconds_from
from tests.cli.test_worker import working

HEAVY = {"aiohttp", "alembic", "arq", "asyncpg", "cryptography", "pydantic", "redis", "sqlalchemy", "structlog"}


async def broken() -> None:
    """Fail."""
    raise OSError


@asynccontextmanager
async def probed(check: Check) -> AsyncIterator[str]:
    """Yield the url of probes with one dependency that does this."""
    probes = Probes(ready={"redis": check}, startup={}, silence=lambda: 0.0, scrape=lambda _accept: (b"", "text/plain"))
    port, url = await probes.serve("127.0.0.1", 0)
    try:
        yield url
    finally:
        await port.close()


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """Yield the url of what is no worker and says this."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.req("OPS-01")
async def test_a_real_worker(begun: Begun) -> None:
    """A worker that is ready gives 0, with every check by name; so does its port in the environment."""
    async with working(begun.settings) as (_, ready):
        url = ready["health_url"]
        ended = await hookseal("check", "--url", url)
        passed = "ok\npostgresql: ok\nredis: ok\nschema: ok\nsecrets: ok\nqueue: ok\n"
        assert (0, passed, "") == (ended.code, ended.out, ended.err)
        port = url.rpartition(":")[2]
        for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 -- where a worker in a container listens
            by_setting = await hookseal("check", "--json", HOOKSEAL_HEALTH_HOST=host, HOOKSEAL_HEALTH_PORT=port)
            assert (0, {"postgresql": "ok", "redis": "ok", "schema": "ok", "secrets": "ok", "queue": "ok"}) == (
                by_setting.code,
                by_setting.json["checks"],
            )


@pytest.mark.req("OPS-01")
async def test_not_ready() -> None:
    """A worker that is not ready gives 69, and its answer tells why; that it lives can be asked too."""
    async with probed(broken) as url:
        ended = await hookseal("check", "--url", url)
        assert (69, "unavailable\nredis: unavailable\n") == (ended.code, ended.out)
        as_json = await hookseal("check", "--json", "--url", f"{url}/readyz")
        assert (69, {"status": "unavailable", "checks": {"redis": "unavailable"}}) == (as_json.code, as_json.json)
        alive = await hookseal("check", "--json", "--url", f"{url}/livez")
        assert (0, {"status": "ok"}) == (alive.code, alive.json)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9"),  # noqa: S104 -- where a worker in a container listens
        ("::", "http://[::1]:9"),
        ("::1", "http://[::1]:9"),
        ("worker.internal", "http://worker.internal:9"),
    ],
)
def test_every_interface_is_asked_on_this_machine(host: str, url: str) -> None:
    """A worker that listens everywhere is asked over the loopback; an IPv6 address stands in brackets."""
    assert url == _own_url({"HOOKSEAL_HEALTH_HOST": host, "HOOKSEAL_HEALTH_PORT": "9"})


@pytest.mark.req("OPS-01")
async def test_nobody_answers() -> None:
    """Nobody there, or somebody silent, gives 69 within seconds, naming the address."""
    async with black_hole() as (hole, called):
        for port in (closed_port(), hole):
            url = f"http://127.0.0.1:{port}"
            ended, seconds = await seconds_from(called, hookseal("check", "--json", "--url", url))
            assert (69, "unavailable") == (ended.code, ended.json["error"]["code"])
            assert url in ended.json["error"]["message"]
            assert seconds < SOON_SECONDS


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"",
    ],
)
async def test_somebody_else_answers(answer: bytes) -> None:
    """What is no worker is not ready, whatever it says."""
    async with saying(answer) as url:
        ended = await hookseal("check", "--url", url)
    assert (69, "") == (ended.code, ended.out)
    assert f"what answers at {url} is no probe of a hookseal worker" in ended.err


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "https://127.0.0.1:8080", "http://", "http://127.0.0.1", "http://a:b", "http://u@h:1"]
)
async def test_a_malformed_url(url: str) -> None:
    """A url that is not of the form that a worker says gives 2."""
    ended = await hookseal("check", "--json", "--url", url)
    assert (2, "malformed", "url") == (ended.code, ended.json["error"]["code"], ended.json["error"]["field"])


@pytest.mark.parametrize("port", ["0", "", "http", "-1"])
async def test_a_port_that_is_none(port: str) -> None:
    """With a port that only the worker knows, it says that --url is needed."""
    ended = await hookseal("check", HOOKSEAL_HEALTH_PORT=port)
    assert 78 == ended.code
    assert "--url" in ended.err


async def test_a_path_that_is_no_probe() -> None:
    """A worker that is asked for another path is not told to be absent: it is said where its probes are."""
    async with probed(broken) as url:
        ended = await hookseal("check", "--url", f"{url}/ready")
    assert 69 == ended.code
    assert "give the worker's health_url with --url" in ended.err


async def test_short_help() -> None:
    """It takes -h as the other commands do."""
    assert (0, "") == ((ended := await hookseal("check", "-h")).code, ended.err)


async def test_it_needs_little() -> None:
    """The command imports nothing that takes long, so that a probe may be asked every few seconds."""
    shown = await python("-c", "import sys; from hookseal.cli.commands import tree; tree('check'); print(*sys.modules)")
    assert set() == HEAVY & set(shown.out.split())


def test_the_defaults_are_those_of_the_worker() -> None:
    """Where it looks is where a worker answers if nothing is set."""
    expected: list[Any] = [DEFAULT_HOST, int(DEFAULT_PORT)]
    assert expected == [NAMES[name].default for name in ("HOOKSEAL_HEALTH_HOST", "HOOKSEAL_HEALTH_PORT")]
