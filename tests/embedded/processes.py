"""What the operating system reports about a process or a port."""

import os
import socket
from pathlib import Path

from hookseal.embedded.server import HOST


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def owner(pid: int) -> int:
    """Return the user id of the process."""
    return Path(f"/proc/{pid}").stat().st_uid


def arguments(pid: int) -> str:
    """Return its command line, which every user of the machine can read."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def program(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def is_open(port: int) -> bool:
    """Return whether a process listens on the port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def taken_port() -> tuple[socket.socket, int]:
    """Bind a port until the socket is closed, without listening on it, and return it."""
    taken = socket.socket()
    taken.bind((HOST, 0))
    return taken, taken.getsockname()[1]
