"""Every place outside a process to which something could leak, read completely, as bytes."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from redis.asyncio import Redis

from hookseal.embedded.server import Server, postgres_tree
from hookseal.postgres.pool import Pool

PAGES = ("/metrics", "/livez", "/readyz", "/startupz", "/healthz")
_FILES = (
    "SELECT relname AS name, pg_relation_filepath(oid) AS path FROM pg_class WHERE relkind IN ('r', 'i', 't')"
    " AND (relnamespace = 'hookseal'::regnamespace OR oid IN (SELECT reltoastrelid FROM pg_class"
    " WHERE relnamespace = 'hookseal'::regnamespace AND reltoastrelid <> 0))"
)
_TABLES = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'hookseal' AND table_type = 'BASE TABLE'"
)


async def pages(url: str) -> dict[str, bytes]:
    """Return every page of a worker's probes, with its headers."""
    found = {}
    async with aiohttp.ClientSession() as session:
        for path in PAGES:
            async with session.get(url + path) as response:
                found[path] = repr(response.raw_headers).encode() + await response.read()
    return found


async def tables(pool: Pool) -> dict[str, bytes]:
    """Return every table, in the text and the binary format of the server."""
    found = {}
    for table in [row["table_name"] for row in await pool.fetch(_TABLES)]:
        for kind in ("text", "binary"):
            copied = BytesIO()
            await pool.copy_from_table(table, schema_name="hookseal", output=copied, format=kind)
            found[f"{table} as {kind}"] = copied.getvalue()
    return found


async def dump(url: str, *options: str) -> bytes:
    """Return the whole database as `pg_dump` writes it, or a part of it with these options."""
    parts = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        *(str(postgres_tree() / "bin" / "pg_dump"), "-h", str(parts.hostname), "-p", str(parts.port)),
        *("-U", str(parts.username), "--inserts", *options, parts.path.removeprefix("/")),
        env={**os.environ, "PGPASSWORD": str(parts.password)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def files_of(pool: Pool, journal_from: str) -> dict[str, bytes]:
    """Return the files of PostgreSQL: tables and indexes, the WAL from that position on, and the server log."""
    await pool.execute("CHECKPOINT")
    data = Path(await pool.fetchval("SHOW data_directory"))
    found = {row["name"]: (data / row["path"]).read_bytes() for row in await pool.fetch(_FILES)}
    start = await pool.fetchrow("SELECT * FROM pg_walfile_name_offset($1::text::pg_lsn)", journal_from)
    assert start is not None
    first, offset = start
    for segment in sorted(file for file in (data / "pg_wal").iterdir() if file.is_file() and file.name >= first):
        found[f"journal {segment.name}"] = segment.read_bytes()[offset if segment.name == first else 0 :].rstrip(b"\0")
    [log] = (data.parents[1]).glob("postgres.log")
    return found | {log.name: log.read_bytes()}


async def keys(url: str) -> dict[str, bytes]:
    """Return every key of every Redis database as a dump, and what the server reports about itself."""
    found = {}
    async with Redis.from_url(url) as client:
        for number in range(16):
            async with Redis.from_url(urlsplit(url)._replace(path=f"/{number}").geturl()) as database:
                async for key in database.scan_iter(count=1000):
                    found[f"{number}/{key!r}"] = bytes(key) + (await database.dump(key) or b"")
        for section in (await client.info("everything"), await client.client_list(), await client.slowlog_get(128)):
            found[f"reported {len(found)}"] = repr(section).encode()
    return found


@asynccontextmanager
async def monitored(server: Server) -> AsyncIterator[bytearray]:
    """Yield all that Redis receives during the block, as its `MONITOR` shows it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"AUTH {urlsplit(server.url).password}\r\nMONITOR\r\n".encode())
    heard = bytearray()

    async def listen() -> None:
        while part := await reader.read(65_536):
            heard.extend(part)

    listening = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        listening.cancel()
        writer.close()
