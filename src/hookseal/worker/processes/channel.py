"""The channel between parent and process: sends whole messages over a private pair of sockets."""

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from hookseal.worker.processes.line import LENGTH_BYTES, ToParent, ToProcess, encoded, length

_Received = TypeVar("_Received")


class Channel(Generic[_Received]):
    """One end of a channel. `decode` turns bytes into messages; a message has at most 1 MiB."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decode: Callable[[bytes], _Received]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decode = decode

    def send(self, message: ToProcess | ToParent) -> None:
        """Queue a message to be sent; on a closed channel it is dropped. Raises `ValueError` if it is too long."""
        if not self._writer.is_closing():
            self._writer.write(encoded(message))

    async def receive(self) -> _Received | None:
        """Return the next message, None once the other end is closed. Raises `ValueError` for an invalid message."""
        try:
            size = length(await self._reader.readexactly(LENGTH_BYTES))
            body = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return self._decode(body)

    def close(self) -> None:
        """Close the channel."""
        self._writer.close()


async def channel_on(end: socket.socket, decode: Callable[[bytes], _Received]) -> Channel[_Received]:
    """Return the channel on this socket; closing the channel closes the socket."""
    reader, writer = await asyncio.open_unix_connection(sock=end)
    return Channel(reader, writer, decode)
