"""The process that has loaded all of hookseal, and forks itself for each command that the tests start.

Python and its libraries start once. What is forked is a process of its own all the same: environment, folder, streams,
signals, caches, logging and exit code belong to one command, and nothing of it is left for the next. Only what Python
does before the first line of a program is not done again: whose law is about that starts a real one.
"""

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, Final, NoReturn

_DESCRIPTORS: Final = 4  # the line on which the end is reported, and the three streams
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_APART: Final = ("hookseal.__main__", "hookseal.embedded.launch", "hookseal.schema.env", "hookseal.schema.versions.")


class _Forking:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lines: dict[int, socket.socket] = {}
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wake-up is written
        signal.set_wakeup_fd(self._wake.fileno())

    def serve(self) -> None:
        """Start what is asked for, until whoever asks is gone. Returns in each forked process, too, to run it."""
        while True:
            ready, _, _ = select.select([self._control, self._woken], [], [])
            if self._woken in ready:
                self._woken.recv(4096)
                self._report()
            if self._control in ready:
                _, descriptors, _, _ = socket.recv_fds(self._control, 1, _DESCRIPTORS)
                if not descriptors:
                    sys.exit()
                self._fork(*descriptors)

    def _fork(self, line_descriptor: int, *streams: int) -> None:
        line = socket.socket(fileno=line_descriptor)
        with line.makefile("rb") as file:
            request = json.loads(file.readline())
        pid = os.fork()
        if pid == 0:
            self._forget(line)
            _become(streams, request)
        for stream in streams:
            os.close(stream)
        line.sendall(b"%d\n" % pid)
        self._lines[pid] = line

    def _report(self) -> None:
        while self._lines:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._lines.pop(pid) as line:
                line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _forget(self, line: socket.socket) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (line, self._control, self._woken, self._wake, *self._lines.values()):
            each.close()


def _become(streams: Iterable[int], request: Mapping[str, Any]) -> NoReturn:
    if sys.platform == "linux":  # nobody is left behind, however the tests end
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
    except BaseException as error:  # noqa: BLE001 - the last place where it can be shown
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as Python does, but for taking down what was loaded, which takes longer than most commands run."""
    gc.collect()  # what is to complain that it was left open does
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _load() -> None:
    import hookseal  # noqa: PLC0415 -- what is forked needs all of it

    for module in walk_packages(hookseal.__path__, "hookseal."):
        if not module.name.startswith(_APART):
            import_module(module.name)
    gc.collect()
    gc.freeze()  # what all of them share stays shared


if __name__ == "__main__":
    _load()
    _Forking(socket.socket(fileno=int(sys.argv[1]))).serve()
