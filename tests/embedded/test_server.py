"""A server of any kind: its port, its start, its failure to start."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from hookseal.embedded.process import Program
from hookseal.embedded.server import HOST, ports, serve
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from tests.doubles.clock import FakeClock
from tests.embedded.processes import is_open

pytestmark = pytest.mark.req("OPS-08")


class ScriptedServer:
    """A server that runs a shell script, and answers if `answering` is true."""

    name = "Mute"

    def __init__(self, script: str, folder: Path, *, answering: bool = False) -> None:
        self.script = script
        self.folder = folder
        self.answering = answering
        self.tried: list[int] = []

    def program(self, port: int) -> Program:
        """Return the script."""
        self.tried.append(port)
        return Program(
            command=("/bin/sh", "-c", self.script),
            folder=self.folder,
            log=self.folder / "log",
            account=None,
            stop_signals=(signal.SIGTERM, signal.SIGKILL),
            death_signal=signal.SIGKILL,
        )

    def url(self, port: int) -> str:
        """Return a url with a password."""
        return f"mute://:the-password@{HOST}:{port}"

    async def answers(self, port: int) -> bool:
        """Return the configured answer."""
        await asyncio.sleep(0)
        return self.answering


STAY = "exec tail -f /dev/null"


def test_a_given_port_is_the_only_one() -> None:
    """A given port is not replaced by another."""
    assert [4711] == list(ports(4711))


def test_a_few_free_ports_are_tried() -> None:
    """Without a given port a few free ones are tried."""
    found = list(ports(None))
    assert 5 == len(found)
    assert not any(is_open(port) for port in found)


async def test_the_repr_hides_the_url(tmp_path: Path) -> None:
    """The url, which contains the password, is not in the repr."""
    async with serve(ScriptedServer(STAY, tmp_path, answering=True), [4711], clock=FakeClock()) as server:
        assert "mute://:the-password@127.0.0.1:4711" == server.url
        assert f"<Mute on 127.0.0.1:4711, process {server.pid}>" == repr(server)


async def test_the_end_of_a_server_is_seen(tmp_path: Path) -> None:
    """A running server has no exit code; one that was killed has that of the signal, and a log."""
    async with serve(ScriptedServer(STAY, tmp_path, answering=True), [4711], clock=FakeClock()) as server:
        codes = [server.exit_code]
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        codes.append(server.exit_code)
        assert ([None, -signal.SIGKILL], tmp_path / "log") == (codes, server.log)


async def test_a_silent_server_is_ended_and_reported(tmp_path: Path) -> None:
    """A server that runs and does not answer in time is ended and reported."""
    clock = FakeClock()
    with pytest.raises(Unavailable, match="embedded Mute does not start"):
        async with serve(ScriptedServer(STAY, tmp_path), [4711, 4712], clock=clock):
            pass
    assert 30 <= clock.elapsed


async def test_a_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """A server that ends at once is reported with the end of its log; no other port is tried."""
    part = ScriptedServer("echo too much sand; exit 1", tmp_path)
    with pytest.raises(Unavailable, match="too much sand"):
        async with serve(part, [4711, 4712], clock=SystemClock()):
            pass
    assert [4711] == part.tried
