"""Both servers at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from hookseal.embedded.account import for_servers
from hookseal.embedded.folders import scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import Server
from hookseal.embedded.valkey import valkey


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A PostgreSQL and a Valkey that answer."""

    postgres: Server
    valkey: Server


@asynccontextmanager
async def stack(folder: Path, *, durable: bool = True) -> AsyncIterator[Stack]:
    """Run both with their state under the folder. Raises `Unavailable` if one is not installed or does not start."""
    # One after the other: Valkey takes a tenth of a second, and PostgreSQL's lock keeps a second stack off the folder.
    async with postgres(folder, durable=durable) as first, valkey(folder, durable=durable) as second:
        yield Stack(postgres=first, valkey=second)


@asynccontextmanager
async def passing_stack() -> AsyncIterator[Stack]:
    """Run both on a fresh folder under the temporary one, with nothing kept: it is gone afterwards."""
    with scratch(for_servers()) as folder:
        async with stack(folder, durable=False) as both:
            yield both
