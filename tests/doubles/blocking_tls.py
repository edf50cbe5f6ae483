"""A TLS server in a thread, with OpenSSL as it is: asyncio's own keeps the alert to itself when a handshake fails."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class BlockingTls:
    """Answers each request with 204; keeps what it read."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._listening.getsockname()[1]}/hook"
        self.requests: list[bytes] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # it was closed
                return
            connection.settimeout(10)
            with connection, suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secure:
                while data := secure.recv(65_536):
                    self.requests.append(data)
                    secure.sendall(b"HTTP/1.1 204 OK\r\n\r\n")

    def end(self) -> None:
        """Take no more connections, and wait until the last one has ended."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.thread.join(20)


@contextmanager
def blocking_tls(context: ssl.SSLContext) -> Iterator[BlockingTls]:
    """Give a server for the length of the block."""
    server = BlockingTls(context)
    try:
        yield server
    finally:
        server.end()
