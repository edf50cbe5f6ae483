"""The process that has loaded all of hookseal, and forks itself for each command that the tests start.

Python and its libraries are started once for all processes of a test run. Each fork is a separate process:
environment, folder, streams, signals, caches, logging and exit code belong to one command, and nothing of it remains
for the next. Only what Python does before the first line of a program is not repeated: tests about that start a new
Python.
"""

import asyncio
import base64
import ctypes
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, Final, NoReturn

_DESCRIPTORS: Final = 4  # the socket on which the end is reported, and the three streams
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_OF: Final = ("--tenant", "acme", "--endpoint", "00000000-0000-7000-8000-000000000000")
_REFUSED: Final = (  # without settings all commands run the same code up to their error, and change no global state
    ("--version",),
    ("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/", "--event-type", "*", "--json"),
    ("endpoint", "rotate", *_OF, "--overlap", "1", "--json"),
    ("endpoint", "list", "--json"),
    ("delivery", "list", "--json"),
    ("secret", "reveal", *_OF, "--json"),
    ("key", "status", "--json"),
    ("audit", "verify", "--json"),
    ("migrate-secrets", "--json"),
    ("worker",),
)
_APART: Final = (
    "hookseal.__main__",
    "hookseal.embedded.launch",
    "hookseal.postgres.schema.env",
    "hookseal.postgres.schema.versions.",
    "hookseal.producers.",  # no command uses them
)


class _Forking:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._controls: list[socket.socket] = []
        self._forks: dict[int, tuple[socket.socket, socket.socket]] = {}  # the line and the control of each
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler is needed for the wake-up byte
        signal.set_wakeup_fd(self._wake.fileno())

    def serve(self) -> None:
        """Start the requested commands until every requester has ended."""
        while True:
            ready, _, _ = select.select([self._listener, self._woken, *self._controls], [], [])
            for each in ready:
                if each is self._woken:
                    self._woken.recv(4096)
                    self._report()
                elif each is self._listener:
                    self._controls.append(self._listener.accept()[0])
                else:
                    self._answer(each)

    def _answer(self, control: socket.socket) -> None:
        _, descriptors, _, _ = socket.recv_fds(control, 1, _DESCRIPTORS)
        if descriptors:
            self._fork(control, *descriptors)
            return
        self._controls.remove(control)
        control.close()
        if not self._controls and not select.select([self._listener], [], [], 0)[0]:
            Path(self._listener.getsockname()).with_suffix("").unlink(missing_ok=True)  # its first name is gone already
            sys.exit()
        for pid, (_, asked_by) in self._forks.items():
            if asked_by is control:
                os.kill(pid, signal.SIGKILL)

    def _fork(self, control: socket.socket, line_descriptor: int, *streams: int) -> None:
        line = socket.socket(fileno=line_descriptor)
        with line.makefile("rb") as file:
            text = file.readline()
        if not text.endswith(b"\n"):  # the requester has ended
            for descriptor in streams:
                os.close(descriptor)
            line.close()
            return
        request = json.loads(text)
        pid = os.fork()
        if pid == 0:
            self._forget(line)
            _become(streams, request)
        for stream in streams:
            os.close(stream)
        self._forks[pid] = (line, control)
        with suppress(OSError):  # as above
            line.sendall(b"%d\n" % pid)

    def _report(self) -> None:
        while self._forks:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._forks.pop(pid)[0] as line, suppress(OSError):  # the requester may have ended
                line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _forget(self, line: socket.socket) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        lines = (each for each, _ in self._forks.values())
        for each in (line, self._listener, self._woken, self._wake, *self._controls, *lines):
            each.close()


def _become(streams: Iterable[int], request: Mapping[str, Any]) -> NoReturn:
    if sys.platform == "linux":  # no fork survives, however the tests end
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    if request["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.umask(request["umask"])
    os.chdir(request["folder"])
    sys.argv = ["", *request["arguments"]]
    _end(_code_of(request["module"]))


def _code_of(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)  # noqa: T201 - as Python does
        return 1
    except BaseException as error:  # noqa: BLE001 - as Python does
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as Python does, without freeing loaded modules, which takes longer than most commands run."""
    gc.collect()  # so that unclosed resources cause their warnings
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _load() -> None:
    import hookseal  # noqa: PLC0415 -- every fork needs all of it

    for module in walk_packages(hookseal.__path__, "hookseal."):
        if not module.name.startswith(_APART):
            import_module(module.name)
    _build_parameters()
    _warm()
    gc.collect()
    gc.freeze()  # so that the forks keep sharing this memory


def _build_parameters() -> None:
    """Build the parameters of every command once, which takes longer than most commands run."""
    from hookseal.cli.commands import tree  # noqa: PLC0415 -- as above

    main: Any = import_module("typer.main")
    build = cache(main._get_params_name_from_function)

    def built(callback: Callable[..., Any] | None) -> Any:
        parameters, context = build(callback)
        return [*parameters], context  # a copy, because callers may append to it

    main._get_params_name_from_function = built
    main.get_params_from_function = cache(main.get_params_from_function)
    commands: list[Any] = [main.get_command(tree(None))]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            parameter.get_runtime_param()  # the conversion of its text to a value


def _warm() -> None:
    """Run once what every command does before it changes anything, so that the forks share Python's caches of it."""
    import asyncpg  # noqa: PLC0415 -- as above

    from hookseal.cli.main import run_command  # noqa: PLC0415 -- as above
    from hookseal.secrets.core.keyring import KeyRing, MasterKey  # noqa: PLC0415 -- as above

    async def connect() -> None:
        with suppress(OSError):
            await asyncpg.connect("postgresql://nobody:nothing@127.0.0.1:1/nowhere")

    KeyRing(MasterKey.parse(base64.b64encode(bytes(range(32))).decode(), variable="SECRETS_MASTER_KEY"))
    asyncio.run(connect())
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for words in _REFUSED:
            run_command(words)


if __name__ == "__main__":
    _load()
    _Forking(socket.socket(fileno=int(sys.argv[1]))).serve()
