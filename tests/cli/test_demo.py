"""`hookseal demo` tells the whole story in a real process, and leaves nothing."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import DEADLINE_SECONDS, Ended, hookseal, python
from tests.cli.leftovers import files_in, processes_in

_WITHOUT = """
import sys
sys.modules["standardwebhooks"] = None
from hookseal.cli.main import main
main()
"""


async def demo(folder: Path, *options: str, **settings: str) -> Ended:
    """Run the demo to its end in this folder, which is also its temporary one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookseal", "demo", *options),
        env={**os.environ, **settings, "TMPDIR": str(folder)},
        cwd=folder,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return Ended(code=process.returncode or 0, out=out.decode(), err=err.decode())


@pytest.mark.req("OPS-08")
@pytest.mark.req("OPS-04", part="json")
async def test_the_whole_story(servers_folder: Path) -> None:
    """All is verified, the settings of the environment are not looked at, and nothing is left."""
    settings = {
        "DATABASE_URL": "postgresql://user:hunter2@127.0.0.1:1/db",
        "REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
        "SECRETS_PROVIDER": "nonsense",
        "HOOKSEAL_NONSENSE": "1",
    }
    ended = await demo(servers_folder, "--json", **settings)
    assert 0 == ended.code, ended.err
    told = ended.json
    assert {"ok", "events", "seconds", "endpoints"} == told.keys()
    assert (True, 50) == (told["ok"], told["events"])
    assert 0 < told["seconds"] < DEADLINE_SECONDS
    counts = {line["endpoint"]: line.pop("deliveries") for line in told["endpoints"]}
    assert {"/acme/invoices": 17, "/acme/everything": 33, "/globex/everything": 17} == counts
    assert [
        {
            "tenant": endpoint.split("/")[1],
            "endpoint": endpoint,
            "delivered": count,
            "verified": count,
            "refused": 0,
        }
        for endpoint, count in counts.items()
    ] == told["endpoints"]
    assert "hunter2" not in ended.err
    assert [] == files_in(servers_folder)
    assert [] == processes_in(servers_folder)


@pytest.mark.req("OPS-08")
async def test_for_a_person(servers_folder: Path) -> None:
    """A person reads what is done, and a table that fits into 80 columns."""
    ended = await demo(servers_folder)
    assert 0 == ended.code, ended.err
    lines = ended.out.splitlines()
    assert all(len(line) <= 80 for line in lines + ended.err.splitlines())
    assert ["tenant", "endpoint", "deliveries", "delivered", "verified", "refused"] == lines[1].split()
    assert lines[-1].startswith("50 events, all verified, ")
    assert all(line.endswith(" ...") for line in ended.err.splitlines())


async def interrupted(folder: Path, number: signal.Signals, when: Callable[[bytes], bool]) -> int | None:
    """Run the demo until it says that line, send it a signal, and return its exit code."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookseal", "demo"),
        env={**os.environ, "TMPDIR": str(folder)},
        cwd=folder,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stderr is not None
    while not when(await process.stderr.readline()):
        pass
    process.send_signal(number)
    await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted(number: signal.Signals, servers_folder: Path) -> None:
    """Control-C in the middle, or what `timeout` sends, ends it with 130, and leaves nothing."""
    assert 130 == await interrupted(servers_folder, number, lambda line: b"starting a worker" in line)
    assert [] == files_in(servers_folder)
    assert [] == processes_in(servers_folder)


async def test_without_the_extra() -> None:
    """Without the extra `embedded` it is named."""
    ended = await python("-c", _WITHOUT, "demo")
    expected = "hookseal: standardwebhooks is not installed: install hookseal[embedded]\n"
    assert (69, expected) == (ended.code, ended.err)


async def test_help_teaches() -> None:
    """Help tells what is verified, by whom, and that nothing stays."""
    out = " ".join((await hookseal("demo", "--help")).out.split())
    assert all(words in out for words in ("exit 0 only if all verified", "standardwebhooks", "Nothing stays"))
