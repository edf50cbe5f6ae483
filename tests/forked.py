"""Commands as processes that need no start of Python, because `tests/forking.py` forks each of them."""

import asyncio
import atexit
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import zlib
from asyncio.base_subprocess import BaseSubprocessTransport
from asyncio.subprocess import DEVNULL, PIPE, Process, SubprocessStreamProtocol
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import IO, Any, Final

_ROOT: Final = Path(__file__).parents[1]
_LINE_BYTES: Final = 1 << 16
_AT_THE_START: Final = ("PYTHON", "LD_")
# The same for all processes of a parallel run of this tree.
_RUN: Final = os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex(6))[:12]
_CONNECTING: Final = threading.Lock()
_SOCKET: Final = Path(gettempdir()) / f"hookseal-{_RUN}-{zlib.crc32(str(_ROOT).encode()):08x}"


async def start(
    *arguments: str,
    module: str = "hookseal",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    start_new_session: bool = False,
) -> Process:
    """Start `python -m hookseal` with these arguments, or another module, as `create_subprocess_exec` would.

    If a variable takes effect only at the start of Python (`LD_PRELOAD`, `PYTHONPATH`), a new Python is started.
    """
    if env is not None and any(name.startswith(_AT_THE_START) and os.environ.get(name) != env[name] for name in env):
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments),
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=start_new_session,
        )
    loop = asyncio.get_running_loop()
    control = _control() if _control.cache_info().currsize else await asyncio.to_thread(_first_control)
    request = {
        "module": module,
        "arguments": arguments,
        "environment": dict(os.environ if env is None else env),
        "folder": str(Path.cwd() if cwd is None else cwd),
        "umask": _umask(),
        "session": start_new_session,
    }
    protocol = SubprocessStreamProtocol(limit=_LINE_BYTES, loop=loop)
    connected = loop.create_future()
    transport = _Transport(
        *(loop, protocol, (module, *arguments), False),
        *(stdin, stdout, stderr, 0),
        waiter=connected,
        control=control,
        request=request,
    )
    await connected
    return Process(transport, protocol, loop)


async def worker(environment: Mapping[str, str], log: IO[bytes], *, module: str = "hookseal") -> Process:
    """Start a worker, as `hookseal.demo.process.start_worker` does."""
    return await start("worker", module=module, env=environment, stdout=PIPE, stderr=log, start_new_session=True)


class _Transport(BaseSubprocessTransport):
    """The transport of asyncio, on a process that another process forks and waits for."""

    def _start(  # type: ignore[override]
        self,
        *,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        control: socket.socket,
        request: Mapping[str, object],
        **_: object,
    ) -> None:
        line, theirs = socket.socketpair()
        with ExitStack() as after:
            ours: list[IO[bytes] | None] = []
            streams = [_stream(number, given, ours, after) for number, given in enumerate((stdin, stdout, stderr))]
            socket.send_fds(control, [b"."], [theirs.fileno(), *streams])
            theirs.close()
            line.sendall(json.dumps(request).encode() + b"\n")  # the other side reads it at once, whatever its length
        self._proc: Any = _Forked(line, *ours)
        line.setblocking(False)
        self._loop.add_reader(line, self._has_ended, line)

    def _has_ended(self, line: socket.socket) -> None:
        self._loop.remove_reader(line)
        with line:
            status = line.recv(16)
        self._process_exited(int(status or -signal.SIGKILL))


class _Forked:
    """What a transport needs of a process, with the interface of `subprocess.Popen`."""

    def __init__(self, line: socket.socket, *pipes: IO[bytes] | None) -> None:
        self.stdin, self.stdout, self.stderr = pipes
        self.pid = int(_word(line))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _first_control() -> socket.socket:
    with _CONNECTING:  # tests may start several processes at once, each in a thread
        return _control()


@cache
def _control() -> socket.socket:
    """Return a socket to the forking process, which has loaded everything, and ends when all of them are closed."""
    ours = socket.socket(socket.AF_UNIX)
    process = None
    with socket.socket(socket.AF_UNIX) as listener:
        own = _SOCKET.with_name(f"{_SOCKET.name}.{os.getpid()}")
        listener.bind(str(own))
        listener.listen()
        is_first = True
        try:
            _SOCKET.hardlink_to(own)  # with the name it listens already, so that nobody is refused
        except FileExistsError:
            is_first = False  # another process of this run has started it
        own.unlink()
        ours.connect(str(_SOCKET))
        if is_first:
            process = _start_forking(listener)

    def end() -> None:
        ours.close()
        if process is not None:
            with suppress(subprocess.TimeoutExpired):  # other processes of this run may still need it
                process.wait(timeout=1)

    atexit.register(end)
    return ours


def _start_forking(listener: socket.socket) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.forking", str(listener.fileno())],
        cwd=_ROOT,
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        # With it the output of commands has no buffer, and what goes wrong with the buffer would not be seen.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )


def _stream(number: int, given: Any, ours: list[IO[bytes] | None], after: ExitStack) -> int:
    """Return the process's end of that stream; our end, if it is a pipe, is appended to `ours`."""
    if given != PIPE:
        ours.append(None)
        if given is None:
            return number
        if given != DEVNULL:
            return given if isinstance(given, int) else int(given.fileno())
        theirs = os.open(os.devnull, os.O_RDWR)
    else:
        reader, writer = os.pipe()
        mine, theirs = (writer, reader) if number == 0 else (reader, writer)
        ours.append(open(mine, "wb" if number == 0 else "rb", buffering=0))  # noqa: SIM115, PTH123 - asyncio closes it
    after.callback(os.close, theirs)
    return theirs


def _word(line: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        more = line.recv(1)  # the exit code may follow the line
        assert more, "the forking process has ended"
        found += more
    return found


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
