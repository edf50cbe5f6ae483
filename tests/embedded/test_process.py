"""One child process: started, frozen and ended."""

import asyncio
import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from hookseal.embedded.process import Process, Program, children, is_stopped

pytestmark = pytest.mark.req("OPS-08")


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
    """Return the program for this shell script."""
    return program(folder, "/bin/sh", "-c", script)


async def read_line(fifo: Path) -> str:
    """Return the line that the program writes to the fifo."""
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
    """A frozen program is stopped when `freeze` returns, and can be ended all the same."""
    os.mkfifo(tmp_path / "fifo")
    process = Process(shell("echo ready > fifo; exec tail -f /dev/null", tmp_path))
    await read_line(tmp_path / "fifo")
    process.freeze()
    assert is_stopped(process.pid)
    await process.stop()
    assert not process.is_running


async def test_a_cancelled_stop_ends_the_process(tmp_path: Path) -> None:
    """A cancelled `stop` still ends the process."""
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
    """The children of a process are found."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in children(os.getpid())
        assert child.pid not in children(child.pid)


def test_a_running_process_is_not_stopped() -> None:
    """A running process is not stopped; a process that is gone counts as stopped."""
    assert not is_stopped(os.getpid())
    with subprocess.Popen(["/bin/true"]) as child:
        pass
    assert is_stopped(child.pid)
