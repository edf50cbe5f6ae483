"""What the system says of a process, or of a port."""

import os
import socket
from pathlib import Path

from hookseal.embedded.server import HOST


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def owner(pid: int) -> int:
    """Return the user id that it runs as."""
    return Path(f"/proc/{pid}").stat().st_uid


def arguments(pid: int) -> str:
    """Return its command line, as everybody on the machine may read it."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def program(pid: int) -> Path:
    """Return the file that it runs."""
    return Path(f"/proc/{pid}/exe").readlink()


def is_open(port: int) -> bool:
    """Tell whether anybody listens on the port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def taken_port() -> tuple[socket.socket, int]:
    """Return a port that is taken until the socket is closed, although nobody listens on it."""
    taken = socket.socket()
    taken.bind((HOST, 0))
    return taken, taken.getsockname()[1]
