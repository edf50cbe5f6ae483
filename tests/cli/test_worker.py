"""`hookseal worker` starts only if it can work, reports readiness, and ends at a signal."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests import forked
from tests.cli.command import DEADLINE_SECONDS, hookseal
from tests.cli.installation import Begun
from tests.cli.listeners import SOON_SECONDS, black_hole, seconds_from
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.embedded.processes import is_open, taken_port

SETTINGS = {"SECRETS_PROVIDER": "db", "SECRETS_MASTER_KEY": MASTER_KEY_TEXT, "HOOKSEAL_HEALTH_PORT": "0"}


@asynccontextmanager
async def working(settings: dict[str, str], *options: str) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    """Yield a ready worker process and its first output."""
    process = await forked.start(
        *("worker", *options),
        env={**os.environ, **SETTINGS, **settings},
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def get(url: str) -> bytes:
    """Return the status line that this url answers."""
    host, _, rest = url.removeprefix("http://").partition(":")
    port, _, path = rest.partition("/")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n")[0]


@pytest.mark.req("OPS-04", part="json")
@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_is_ready_until_a_signal(options: tuple[str, ...], number: signal.Signals, begun: Begun) -> None:
    """One line reports readiness and the address of the probes; a signal ends it with 0 and no more output."""
    async with working(begun.settings, *options) as (process, ready):
        assert {"event", "worker_id", "pid", "health_url"} == ready.keys()
        assert ("worker.ready", process.pid) == (ready["event"], ready["pid"])
        for path in ("/livez", "/readyz", "/healthz", "/startupz", "/metrics"):
            assert b"HTTP/1.1 200 OK" == await get(ready["health_url"] + path)
        process.send_signal(number)
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        assert (0, b"") == (process.returncode, out)
        events = [json.loads(line)["event"] for line in err.splitlines()]
        events = [event for event in events if event.startswith("worker.")]
        assert ["worker.ready", "worker.draining", "worker.stopped"] == events
        assert not is_open(int(ready["health_url"].rpartition(":")[2]))


@pytest.mark.req("OPS-04", part="errors")
async def test_every_wrong_setting_is_reported_at_once() -> None:
    """Wrong settings exit 78 with one line for each problem, or one object, without a value."""
    settings = {"HOOKSEAL_CONCURENCY": "7", "HOOKSEAL_LEASE_SECONDS": "hunter2", "SECRETS_PROVIDER": "dev"}
    ended = await hookseal("worker", **settings)
    assert (78, "") == (ended.code, ended.out)
    assert ["DATABASE_URL", "HOOKSEAL_CONCURENCY", "HOOKSEAL_LEASE_SECONDS", "REDIS_URL", "SECRETS_PROVIDER"] == sorted(
        line.removeprefix("hookseal: ").split()[0] for line in ended.err.splitlines()
    )
    assert "hunter2" not in ended.err
    as_json = await hookseal("worker", "--json", **settings)
    assert (78, "configuration", "") == (as_json.code, as_json.json["error"]["code"], as_json.err)
    assert 5 == len(as_json.json["error"]["message"].splitlines())


@pytest.mark.req("OPS-04", part="errors")
async def test_without_postgresql_it_exits_within_seconds() -> None:
    """If PostgreSQL is silent, it exits within seconds and names the address, without the password."""
    async with black_hole() as (port, called):
        url = f"postgresql://user:hunter2@127.0.0.1:{port}/db"
        settings = SETTINGS | {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1"}
        ended, seconds = await seconds_from(called, hookseal("worker", "--json", **settings))
    assert (69, "unavailable", True) == (ended.code, ended.json["error"]["code"], seconds < SOON_SECONDS)
    assert f"PostgreSQL at 127.0.0.1:{port} does not answer" in ended.json["error"]["message"]
    assert "hunter2" not in ended.out + ended.err


async def test_a_busy_port_names_the_setting(begun: Begun) -> None:
    """The parent of several processes holds the port: if it is busy, the error names the setting, once."""
    taken, port = taken_port()
    with taken:
        ended = await begun.run("worker", HOOKSEAL_HEALTH_PORT=str(port), HOOKSEAL_PROCESSES="2")
    assert (69, "") == (ended.code, ended.out)
    [line] = [line for line in ended.err.splitlines() if line.startswith("hookseal: ")]
    assert f"127.0.0.1:{port}" in line
    assert "HOOKSEAL_HEALTH_PORT" in line


async def test_several_processes_report_one_refusal(database_url: str, redis_url: str) -> None:
    """With several processes a failed start has the same exit code and object, reported once."""
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **SETTINGS}
    one = await hookseal("worker", "--json", **settings)
    several = await hookseal("worker", "--json", "--processes", "2", **settings)
    assert (78, one.out) == (several.code, several.out)
    assert [] == [line for line in several.err.splitlines() if not line.startswith("{")]


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_unwritable_output_ends_the_worker(processes: str, begun: Begun) -> None:
    """If its output cannot be written, one worker or several end with that error."""
    settings = {**os.environ, **SETTINGS, **begun.settings, "HOOKSEAL_PROCESSES": processes}
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await forked.start("worker", env=settings, stdout=full, stderr=PIPE)
        _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    finally:
        os.close(full)
    assert 69 == process.returncode
    assert b"cannot be written to its standard output (OSError): keep its reader open, make room on its disk" in err


async def test_a_closed_output_ends_the_worker(begun: Begun) -> None:
    """If its output is closed, a worker ends with the same error before it starts."""
    command = ("sh", "-c", f'exec "{sys.executable}" -m hookseal worker >&-')
    settings = {**os.environ, **SETTINGS, **begun.settings}
    process = await asyncio.create_subprocess_exec(*command, env=settings, stderr=PIPE)
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert 69 == process.returncode
    assert b"cannot be written to its standard output (it is closed): keep its reader open" in err


async def test_the_number_of_processes_is_limited() -> None:
    """`--processes` accepts 1 to 64, as its setting does."""
    for number in ("0", "65"):
        option = " ".join((await hookseal("worker", "--processes", number, **SETTINGS)).err.split())
        assert "--processes" in option
        assert "must be 1 to 64; for more processes start another `hookseal worker`" in option


async def test_help_describes_the_ready_line() -> None:
    """The help describes the ready line, the probes, and how it ends."""
    out = (await hookseal("worker", "--help")).out
    assert all(
        word in out for word in ("SIGTERM", "/readyz", "/metrics", "hookseal check", "HOOKSEAL_HEALTH_PORT", "Example:")
    )
