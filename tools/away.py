"""A server that is further away: a process that passes on TCP connections, each byte so many milliseconds later.

    python -m tools.away PORT MILLISECONDS

It listens on a free port of the loopback, which it prints, passes on to PORT there, and ends with its standard input.
The kernel can delay packets itself (`tc qdisc ... netem`), but only for root, and only where it has that module.
"""

import contextlib
import socket
import sys
import threading
import time
from queue import SimpleQueue
from typing import Final

_HOST: Final = "127.0.0.1"
_BYTES: Final = 262_144


def _read(source: socket.socket, parts: "SimpleQueue[tuple[float, bytes]]", seconds: float) -> None:
    """Queue what arrives, with the time at which it is due, until the connection ends, whose last part is empty."""
    part = b"-"
    while part:
        try:
            part = source.recv(_BYTES)
        except OSError:
            part = b""
        parts.put((time.monotonic() + seconds, part))


def _write(target: socket.socket, parts: "SimpleQueue[tuple[float, bytes]]") -> None:
    """Send each part when it is due, and end the connection after the last one."""
    with contextlib.suppress(OSError):
        while True:
            due, part = parts.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not part:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(part)


def _pass_on(client: socket.socket, port: int, seconds: float) -> None:
    server = socket.create_connection((_HOST, port))
    for source, target in ((client, server), (server, client)):
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        parts: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        threading.Thread(target=_read, args=(source, parts, seconds), daemon=True).start()
        threading.Thread(target=_write, args=(target, parts), daemon=True).start()


def _serve(listening: socket.socket, port: int, seconds: float) -> None:
    while True:
        client, _ = listening.accept()
        with contextlib.suppress(OSError):  # a server that refuses ends this connection, and no other
            _pass_on(client, port, seconds)


def main(port: int, milliseconds: float) -> None:
    """Pass on until standard input ends."""
    listening = socket.create_server((_HOST, 0), backlog=256)
    threading.Thread(target=_serve, args=(listening, port, milliseconds / 1e3), daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
