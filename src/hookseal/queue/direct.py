"""Sends commands over connections of the Redis client, but not through the client: a lone command takes half the time.

The client checks each connection for unread data, may repeat commands, and converts their answers. A ring and the wait
for rings need none of that, and each delivery waits for them.
"""

from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ResponseError
from redis.typing import EncodableT


class Direct:
    """Sends commands over connections of its own, such as the pool makes. Any number of tasks may use it at once."""

    def __init__(self, pool: ConnectionPool) -> None:
        """Connect at the first command."""
        self._pool = pool
        self._open: set[AbstractConnection] = set()
        self._idle: list[AbstractConnection] = []

    async def send(self, *commands: Sequence[EncodableT]) -> list[Any]:
        """Send the commands at once, and return the answer to each; the refusal of a command is an answer, too.

        Raises the other errors of the Redis client: it is then unknown which commands Redis has run. One of them is
        `ConnectionError` if Redis has ended the connection since its last use.
        """
        connection = self._idle.pop() if self._idle else self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._open.add(connection)
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers = [await _answer(connection) for _ in commands]
        except BaseException:
            await self._end(connection)
            raise
        if any(isinstance(each, ResponseError) for each in answers):
            await self._end(connection)  # a refusal of something else, before a command, would shift all later answers
        else:
            self._idle.append(connection)
        return answers

    async def _end(self, connection: AbstractConnection) -> None:
        self._open.discard(connection)
        await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close every connection."""
        self._idle.clear()
        while self._open:
            await self._open.pop().disconnect()


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
