"""The exit code of `hookseal check` says whether a worker is ready."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from hookseal.cli import direct
from hookseal.cli.readiness import DEFAULT_HOST, DEFAULT_PORT, own_url
from hookseal.config.variables import NAMES
from hookseal.worker.health import Check, Probes
from tests.cli.command import Ended, hookseal
from tests.cli.installation import Begun
from tests.cli.listeners import SOON_SECONDS, black_hole, closed_port, seconds_from
from tests.cli.test_worker import working
from tests.worker.test_probes import FINE
from tests.worker.waiting import eventually


async def broken() -> None:
    """Fail."""
    raise OSError


@asynccontextmanager
async def probed(check: Check) -> AsyncIterator[str]:
    """Yield the url of probes with one dependency that behaves like this."""
    probes = Probes(ready={"redis": check}, startup={}, loops=(), scrape=lambda _accept: (b"", "text/plain"))
    port, url = await probes.serve("127.0.0.1", 0)
    try:
        yield url
    finally:
        await port.close()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Yield the url of a server that is no worker and answers this."""

    async def answer_raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(answer_raw, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def succeeded(*options: str, **settings: str) -> Ended | None:
    """Check the worker; return None if it is not ready, as while the machine is too busy for its checks."""
    ended = await hookseal("check", *options, **settings)
    return None if ended.code else ended


@pytest.mark.req("OPS-01")
async def test_a_ready_worker_exits_0(begun: Begun) -> None:
    """A ready worker exits 0 with every check by name; its port may be in the environment."""
    async with working(begun.settings) as (_, ready):
        url = ready["health_url"]
        ended = await eventually(partial(succeeded, "--url", url))
        passed = "".join(f"{name}: ok\n" for name in FINE["/readyz"])
        assert (f"ok\n{passed}", "") == (ended.out, ended.err)
        port = url.rpartition(":")[2]
        for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 -- where a worker in a container listens
            by = {"HOOKSEAL_HEALTH_HOST": host, "HOOKSEAL_HEALTH_PORT": port}
            by_setting = await eventually(partial(succeeded, "--json", **by))
            assert FINE["/readyz"] == by_setting.json["checks"]


@pytest.mark.req("OPS-01")
async def test_an_unready_worker_exits_69() -> None:
    """A worker that is not ready exits 69 with the reason; `/livez` can be checked, too."""
    async with probed(broken) as url:
        ended = await hookseal("check", "--url", url)
        assert (69, "unavailable\nredis: unavailable\n") == (ended.code, ended.out)
        as_json = await hookseal("check", "--json", "--url", f"{url}/readyz")
        assert (69, {"status": "unavailable", "checks": {"redis": "unavailable"}}) == (as_json.code, as_json.json)
        alive = await hookseal("check", "--json", "--url", f"{url}/livez")
        assert (0, {"status": "ok"}) == (alive.code, alive.json)


async def test_each_process_is_named() -> None:
    """For a worker of several processes each one is named, including one that does not answer."""
    body = b'{"status":"degraded","checks":{"redis":"ok"},"processes":{"1":"ok","2":"silent"}}'
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    async with answering(head + body) as url:
        ended = await hookseal("check", "--url", url)
    assert (69, "degraded\nredis: ok\nprocess 1: ok\nprocess 2: silent\n") == (ended.code, ended.out)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9"),  # noqa: S104 -- where a worker in a container listens
        ("::", "http://[::1]:9"),
        ("::1", "http://[::1]:9"),
        ("worker.internal", "http://worker.internal:9"),
    ],
)
def test_a_worker_on_all_interfaces_is_asked_on_loopback(host: str, url: str) -> None:
    """If a worker listens on all interfaces, loopback is used; an IPv6 address is in brackets."""
    assert url == own_url({"HOOKSEAL_HEALTH_HOST": host, "HOOKSEAL_HEALTH_PORT": "9"})


@pytest.mark.req("OPS-01")
async def test_a_silent_address_exits_69() -> None:
    """A closed port and a server that never answers exit 69 within seconds, with the address."""
    async with black_hole() as (hole, called):
        for port in (closed_port(), hole):
            url = f"http://127.0.0.1:{port}"
            ended, seconds = await seconds_from(called, hookseal("check", "--json", "--url", url))
            assert (69, "unavailable") == (ended.code, ended.json["error"]["code"])
            assert url in ended.json["error"]["message"]
            assert seconds < SOON_SECONDS


async def test_another_server_is_not_ready() -> None:
    """A server that is no worker is not ready, whatever it answers."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    for answer in (b"SSH-2.0-OpenSSH\r\n", head + b"[]", head + b"{}", b""):
        async with answering(answer) as url:
            ended = await hookseal("check", "--url", url)
        assert (69, "") == (ended.code, ended.out)
        assert f"the program at {url} is no hookseal worker" in ended.err


def test_a_malformed_url_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A url of another form than a worker prints exits 2."""
    for url in (
        "127.0.0.1:8080",
        "https://127.0.0.1:8080",
        "http://",
        "http://127.0.0.1",
        "http://a:b",
        "http://u@h:1",
    ):
        assert 2 == direct.run_command(["check", "--json", "--url", url]), url
        error = json.loads(capsys.readouterr().out)["error"]
        assert ("malformed", "url") == (error["code"], error["field"])


def test_an_unknown_port_asks_for_the_url(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """If only the worker knows its port, the error says that `--url` is needed."""
    for port in ("0", "", "http", "-1", "65536"):
        monkeypatch.setenv("HOOKSEAL_HEALTH_PORT", port)
        assert 78 == direct.run_command(["check"]), port
        assert "give with --url the health_url" in capsys.readouterr().err


async def test_another_path_asks_for_the_health_url() -> None:
    """If the path is no probe, the error asks for the health_url and does not call the worker absent."""
    async with probed(broken) as url:
        ended = await hookseal("check", "--url", f"{url}/ready")
    assert 69 == ended.code
    assert "give the worker's health_url with --url" in ended.err


async def test_h_shows_the_help() -> None:
    """The command accepts `-h`, as the other commands do."""
    assert (0, "") == ((ended := await hookseal("check", "-h")).code, ended.err)


def test_the_default_url_is_the_workers() -> None:
    """Its default url is where a worker listens by default."""
    expected: list[Any] = [DEFAULT_HOST, int(DEFAULT_PORT)]
    assert expected == [NAMES[name].default for name in ("HOOKSEAL_HEALTH_HOST", "HOOKSEAL_HEALTH_PORT")]


@pytest.mark.req("OPS-01", "DUR-04")
async def test_it_prints_why_nothing_is_recorded() -> None:
    """A worker that cannot record says since when, how many outcomes wait, and why."""
    report = '{"since":"2026-01-02T03:04:05Z","outcomes":7,"reason":"PostgreSQL does not answer (DiskFullError)"}'
    body = f'{{"status":"unavailable","checks":{{"records":"unavailable"}},"unrecorded":{report}}}'
    head = f"HTTP/1.1 503 Unavailable\r\nContent-Length: {len(body)}\r\n\r\n"
    async with answering((head + body).encode()) as url:
        ended = await hookseal("check", "--url", url)

    why = "unrecorded: 7 since 2026-01-02T03:04:05Z: PostgreSQL does not answer (DiskFullError)"
    assert (69, f"unavailable\nrecords: unavailable\n{why}\n") == (ended.code, ended.out)
