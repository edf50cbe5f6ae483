"""A child process, and a server of any kind in it: started, frozen, ended, and its failure to start."""

import asyncio
import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from hookseal.embedded.process import Process, Program, children, is_stopped
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
        return f"mute://:the-password@{HOST}:{port}"

    async def answers(self, port: int) -> bool:
        await asyncio.sleep(0)
        return self.answering


STAY = "exec tail -f /dev/null"


def test_a_given_port_is_the_only_one() -> None:
    assert [4711] == list(ports(4711))


def test_a_few_free_ports_are_tried() -> None:
    """Without a given port a few free ones are tried."""
    found = list(ports(None))
    assert 5 == len(found)
    assert not any(is_open(port) for port in found)


async def test_the_repr_hides_the_url(tmp_path: Path) -> None:
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


# One child process: started, frozen and ended.


def program(folder: Path, *command: str, standard_input: str = "") -> Program:
    """Return the program for this command; SIGINT stops it, then SIGKILL."""
    return Program(
        command=command,
        folder=folder,
        log=folder / "log",
        account=None,
        stop_signals=(signal.SIGINT, signal.SIGKILL),
        death_signal=signal.SIGKILL,
        standard_input=standard_input,
        stop_seconds=0.2,
    )


def shell(script: str, folder: Path) -> Program:
    return program(folder, "/bin/sh", "-c", script)


async def read_line(fifo: Path) -> str:
    return await asyncio.to_thread(fifo.read_text)


async def test_exit_0_is_a_success(tmp_path: Path) -> None:
    """A program that exits with status 0 has finished well, and its output is in its log."""
    process = Process(shell("echo it is done", tmp_path))
    assert await process.finish(10)
    assert "it is done" == process.last_lines()
    assert not process.is_running


@pytest.mark.parametrize("script", ["exit 3", "exec tail -f /dev/null"])
async def test_a_failed_or_slow_program_is_ended(script: str, tmp_path: Path) -> None:
    """A program that fails or takes too long has not finished well, and has ended afterwards."""
    process = Process(shell(script, tmp_path))
    assert not await process.finish(0.2 if "tail" in script else 10)
    assert not process.is_running


async def test_a_missing_program_is_logged(tmp_path: Path) -> None:
    """The log says why a program could not be run."""
    process = Process(program(tmp_path, str(tmp_path / "nothing")))
    assert not await process.finish(10)
    assert "No such file or directory" in process.last_lines()


async def test_a_program_gets_its_standard_input(tmp_path: Path) -> None:
    """A program gets its standard input to the end; no argument and no file contains it."""
    cat = program(tmp_path, "/bin/cat", standard_input="said in private")
    assert "private" not in repr(cat)
    process = Process(cat)
    assert await process.finish(10)
    assert "said in private" == process.last_lines()


async def test_a_program_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    """A program that ignores the first signal gets the next one."""
    os.mkfifo(tmp_path / "fifo")
    process = Process(shell('trap "" INT; echo ready > fifo; exec tail -f /dev/null', tmp_path))
    assert "ready\n" == await read_line(tmp_path / "fifo")
    await process.stop()
    assert not process.is_running


async def test_a_frozen_program_can_be_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    process = Process(shell("echo ready > fifo; exec tail -f /dev/null", tmp_path))
    await read_line(tmp_path / "fifo")
    process.freeze()
    assert is_stopped(process.pid)
    await process.stop()
    assert not process.is_running


async def test_a_cancelled_stop_ends_the_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    process = Process(shell('trap "" INT; echo ready > fifo; exec tail -f /dev/null', tmp_path))
    await read_line(tmp_path / "fifo")
    stopping = asyncio.create_task(process.stop())
    stopping.get_loop().call_soon(stopping.cancel)
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not process.is_running


async def test_no_variable_reaches_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this process, which may contain a secret, reaches a server."""
    monkeypatch.setenv("SECRETS_MASTER_KEY", "a-key-that-must-stay")
    process = Process(shell("env", tmp_path))
    assert await process.finish(10)
    assert "a-key-that-must-stay" not in process.last_lines()


def test_an_orphan_does_not_start() -> None:
    """A launch whose parent has died meanwhile ends at once."""
    text = files("hookseal.embedded").joinpath("launch.py").read_text()
    not_the_parent = "1" if os.getpid() != 1 else "2"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", text, not_the_parent, str(int(signal.SIGTERM)), "", "/bin/true"], check=False
    )
    assert -signal.SIGKILL == ended.returncode


def test_children_are_listed() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in children(os.getpid())
        assert child.pid not in children(child.pid)


def test_a_running_process_is_not_stopped() -> None:
    assert not is_stopped(os.getpid())
    with subprocess.Popen(["/bin/true"]) as child:
        pass
    assert is_stopped(child.pid)
