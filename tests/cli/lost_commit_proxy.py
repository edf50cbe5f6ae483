"""A proxy for PostgreSQL that loses the answer to a commit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class _Line:
    """Forwards both ways, until a commit after a rotation or a new endpoint was sent: then it returns nothing."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        from_server, to_server = await asyncio.open_connection(self._host, self._port)
        lost = asyncio.Event()
        changed = False

        async def up() -> None:
            nonlocal changed
            while data := await reader.read(65_536):
                changed = changed or b"INSERT INTO hookseal.audit_log" in data
                if changed and b"COMMIT" in data:
                    lost.set()
                to_server.write(data)

        async def down() -> None:
            while (data := await from_server.read(65_536)) and not lost.is_set():
                writer.write(data)

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in (writer, to_server):
            each.transport.abort()


@asynccontextmanager
async def losing_the_commit(database_url: str) -> AsyncIterator[str]:
    """Yield another url of the database through which no commit is answered."""
    parts = urlsplit(database_url)
    line = _Line(parts.hostname or "127.0.0.1", parts.port or 5432)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
    finally:
        server.close()
