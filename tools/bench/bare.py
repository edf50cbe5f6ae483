"""The first baseline: a loop that POSTs with aiohttp, signs nothing, records nothing, logs nothing."""

import asyncio
import json
import resource
import sys

import aiohttp
import uvloop


async def main(url: str, requests: int, concurrency: int, body_bytes: int) -> None:
    """Send so many requests, and print what they cost this process."""
    body = b"x" * body_bytes
    left = iter(range(requests))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send() -> None:
            for _ in left:
                async with session.post(url, data=body) as response:
                    await response.read()

        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*(send() for _ in range(concurrency)))
        after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
