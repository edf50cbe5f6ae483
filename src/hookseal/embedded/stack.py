"""PostgreSQL and Valkey together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import Server
from hookseal.embedded.valkey import valkey


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running PostgreSQL and a running Valkey."""

    postgres: Server
    valkey: Server


@asynccontextmanager
async def stack(folder: Path, *, durable: bool = True, tree: Path | None = None) -> AsyncIterator[Stack]:
    """Run both with their state under the folder, PostgreSQL from `tree` if that is given.

    Raises `Unavailable` if one is not installed or does not start.
    """
    # In this order: the lock of PostgreSQL keeps a second stack out of the folder, and Valkey starts within 0.1 s.
    async with postgres(folder, durable=durable, tree=tree) as first, valkey(folder, durable=durable) as second:
        yield Stack(postgres=first, valkey=second)


@asynccontextmanager
async def temporary_stack() -> AsyncIterator[Stack]:
    """Run both in a new folder under the temporary one, without durability, and remove it at the end."""
    with scratch(for_servers()) as folder:
        async with stack(folder, durable=False) as both:
            yield both
