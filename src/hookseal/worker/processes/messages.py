"""The messages between a parent and its processes, and how they are sent over their socket pair."""

import asyncio
import socket
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from hookseal.worker.metrics.runtime import Aggregation

MOST_BYTES: Final = 1 << 20
LENGTH_BYTES: Final = 4


class Start(msgspec.Struct, tag=True, frozen=True):
    """The first message to a process: its number, the url of the probes, and every variable of hookseal.

    `files` has the paths of credentials that are read again, and `listening` is the descriptor of the socket whose
    connections it accepts.
    """

    number: int
    health_url: str
    variables: dict[str, str]
    files: dict[str, str] = {}
    listening: int | None = None

    def __repr__(self) -> str:
        """Show no value: one of them is the master key."""
        return f"Start(number={self.number})"


class Topic(StrEnum):
    """What the parent asks for: a sign of life, the checks of `/readyz`, the checks of `/startupz`, the metrics."""

    BEAT = "beat"
    READY = "ready"
    STARTUP = "startup"
    FIGURES = "figures"


class Ask(msgspec.Struct, tag=True, frozen=True):
    """A question. Its answer has the same id."""

    id: int
    topic: Topic


class Family(msgspec.Struct, frozen=True):
    """All samples of one metric: each with its name, labels and value. `aggregation` applies to gauges only."""

    name: str
    kind: str
    text: str
    aggregation: Aggregation
    samples: list[tuple[str, dict[str, str], float]]


class Answer(msgspec.Struct, tag=True, frozen=True):
    """`moves` says whether the loop that takes rings runs; `states` has the result of each check that was asked for.

    `unrecorded` says since when and why the process cannot record, `unaudited` names the endpoints of `/readyz`.
    """

    id: int
    moves: bool
    draining: bool
    states: dict[str, str] = {}
    unrecorded: dict[str, str | int] | None = None
    unaudited: list[dict[str, str]] = []
    figures: list[Family] = []


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The process takes rings now, or requests. Only a worker has an id."""

    worker_id: str = ""


class Refusal(msgspec.Struct, tag=True, frozen=True):
    """The error with which a process ends: what a single worker would print and exit with."""

    code: str
    exit_code: int
    message: str
    field: str | None = None


ToProcess: TypeAlias = Start | Ask
ToParent: TypeAlias = Answer | Ready | Refusal

_Message = TypeVar("_Message", ToProcess, ToParent)
_encoder: Final = msgspec.msgpack.Encoder()
_to_process: Final[msgspec.msgpack.Decoder[ToProcess]] = msgspec.msgpack.Decoder(ToProcess)
_to_parent: Final[msgspec.msgpack.Decoder[ToParent]] = msgspec.msgpack.Decoder(ToParent)


def encoded(message: ToProcess | ToParent) -> bytes:
    """Return a message as bytes, after its length. Raises `ValueError` if it is longer than a megabyte."""
    body = _encoder.encode(message)
    if len(body) > MOST_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is longer than the {MOST_BYTES} that are allowed")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def length(head: bytes) -> int:
    """Return the length of the message after this head. Raises `ValueError` if it is longer than a megabyte."""
    size = int.from_bytes(head, "big")
    if size > MOST_BYTES:
        raise ValueError(f"a message of {size} bytes is longer than the {MOST_BYTES} that are allowed")
    return size


def to_process(body: bytes) -> ToProcess:
    """Return a message of the parent. Raises `ValueError` for an invalid one."""
    return _decoded(_to_process, body)


def to_parent(body: bytes) -> ToParent:
    """Return a message of a process. Raises `ValueError` for an invalid one."""
    return _decoded(_to_parent, body)


def _decoded(decoder: msgspec.msgpack.Decoder[_Message], body: bytes) -> _Message:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the message is not valid ({type(error).__name__})") from None


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
