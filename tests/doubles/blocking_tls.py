"""A TLS server in a thread on plain OpenSSL, because asyncio does not send the alert of a failed handshake."""

import os
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
            except OSError:  # the listening socket was closed
                return
            connection.settimeout(10)
            with self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secure:
                try:
                    secure.do_handshake()
                except ssl.SSLError:
                    self._read_out(secure)
                    continue
                with suppress(OSError):
                    self._answer(secure)

    def _answer(self, secure: ssl.SSLSocket) -> None:
        while data := secure.recv(65_536):
            self.requests.append(data)
            secure.sendall(b"HTTP/1.1 204 OK\r\n\r\n")

    @staticmethod
    def _read_out(secure: ssl.SSLSocket) -> None:
        """Read everything that is sent, because closing with unread data would discard the alert."""
        secure.setblocking(True)
        os.set_blocking(secure.fileno(), True)
        with suppress(OSError):
            socket.socket.shutdown(secure, socket.SHUT_WR)
            while os.read(secure.fileno(), 65_536):
                pass

    def end(self) -> None:
        """Accept no more connections, and wait until the last one has ended."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.thread.join(20)


@contextmanager
def blocking_tls(context: ssl.SSLContext) -> Iterator[BlockingTls]:
    server = BlockingTls(context)
    try:
        yield server
    finally:
        server.end()
