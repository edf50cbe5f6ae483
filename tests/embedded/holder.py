"""A program that starts both servers in a folder, prints their process ids, and waits until it is killed."""

import asyncio
import sys
from pathlib import Path

from hookseal.embedded.stack import stack


async def _hold(folder: Path, state: str) -> None:
    async with stack(folder, durable=False) as both:
        if state == "frozen":
            both.postgres.freeze()
            both.valkey.freeze()
        print(both.postgres.pid, both.valkey.pid, flush=True)  # noqa: T201 -- its answer
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_hold(Path(sys.argv[1]), sys.argv[2]))
