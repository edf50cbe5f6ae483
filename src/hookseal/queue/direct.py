"""Sends commands over connections of the Redis client, but not through the client: a lone command takes half the time.

The client checks each connection for unread data before it sends, and converts each answer. A ring and the wait for
rings need neither, and each delivery waits for them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as ConnectionEnded
from redis.exceptions import InvalidResponse, ReadOnlyError, ResponseError
from redis.typing import EncodableT

MOST_IDLE: Final = 32
_TOKEN: Final = b"hookseal: in step?"
_CLOSED: Final = "the connections are closed"


class Direct:
    """Sends commands over connections of its own, such as the pool makes. Any number of tasks may use it at once.

    It keeps at most 32 connections that no call uses.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        """Connect at the first command."""
        self._pool = pool
        self._open: set[AbstractConnection] = set()
        self._idle: list[AbstractConnection] = []
        self._is_closed = False

    async def send(self, *commands: Sequence[EncodableT], is_answer: Callable[[Any], bool]) -> list[Any]:
        """Send the commands at once, and return the answer to each; the refusal of a command is an answer, too.

        They are sent again over a new connection if Redis has ended the one that was used, so Redis may run them twice.
        `is_answer` says whether something may be the answer to the last command. If it is not, and is no refusal
        either, this raises `InvalidResponse`: something that was not asked for came before. Raises the other errors of
        the Redis client, too; then it is unknown which commands Redis has run. After any error, a cancellation, and the
        refusal of a replica, later calls use new connections: the network may have dropped the others without a word,
        too, or the name leads to another server since a failover.
        """
        if self._idle:
            try:
                return await self._answers(self._idle.pop(), commands, is_answer)
            except BaseException as error:
                ended, self._idle = self._idle, []
                await self._end(*ended)
                if not isinstance(error, ConnectionEnded):
                    raise
        return await self._answers(self._pool.make_connection(), commands, is_answer)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close every connection. A call that waits for an answer, or comes later, raises an error of the client."""
        self._is_closed = True
        self._idle.clear()
        await self._end(*self._open)

    async def _answers(
        self, connection: AbstractConnection, commands: Iterable[Sequence[EncodableT]], is_answer: Callable[[Any], bool]
    ) -> list[Any]:
        self._require_open()
        self._open.add(connection)
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers = [await _answer(connection) for _ in commands]
            is_usable = is_answer(answers[-1]) or await _is_in_step(connection)
        except BaseException as error:
            await self._end(connection)
            if self._is_closed and isinstance(error, AttributeError):  # the client's, if it was about to send
                raise ConnectionEnded(_CLOSED) from error
            raise
        if is_usable and not self._is_closed and len(self._idle) < MOST_IDLE:
            self._idle.append(connection)
        else:
            await self._end(connection)
        if any(map(is_of_replica, answers)):
            ended, self._idle = self._idle, []
            await self._end(*ended)
            await self._pool.disconnect(inuse_connections=False)  # those of the client, which others of us use
        if not (is_answer(answers[-1]) or isinstance(answers[-1], ResponseError)):
            raise InvalidResponse("Redis has answered something else than was asked")
        return answers

    def _require_open(self) -> None:
        if self._is_closed:
            raise ConnectionEnded(_CLOSED)

    async def _end(self, *connections: AbstractConnection) -> None:
        self._open.difference_update(connections)
        for each in connections:
            await each.disconnect(nowait=True)  # which does not suspend: no cancellation can leave one open


def is_of_replica(answer: object) -> bool:
    """Return whether this is the refusal of a replica to write. Before Redis 7 that of a script has it in its text."""
    return isinstance(answer, ReadOnlyError) or (isinstance(answer, ResponseError) and "READONLY" in str(answer))


async def _is_in_step(connection: AbstractConnection) -> bool:
    """Return whether the next answer is that of the next command."""
    await connection.send_packed_command(connection.pack_command("PING", _TOKEN), check_health=False)
    return bool(await _answer(connection) == _TOKEN)


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
