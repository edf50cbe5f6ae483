"""Every command and every program of docs/tutorial.md, in its order, with real servers, processes and requests."""

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hookseal.embedded.server import Server, ports, postgres_tree
from tests.cli.tutorial import Reader
from tests.fresh import fresh_postgres


@pytest.mark.req("UX-04", part="tutorial")
@pytest.mark.timeout(900)
async def test_the_tutorial_runs_as_written(servers_folder: Path, own_valkey: Server) -> None:
    """From an empty folder to an upgraded installation, each step shows what the page says."""
    async with fresh_postgres(migrated=False) as postgres, AsyncExitStack() as opened:
        reader = Reader(servers_folder, environment(servers_folder), replacements(postgres, own_valkey), opened)
        await reader.follow()


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a terminal without settings: the programs of these tests, and those of PostgreSQL."""
    programs = f"{Path(sys.executable).parent}:{postgres_tree() / 'bin'}:{os.environ['PATH']}"
    return {"PATH": programs, "HOME": str(folder), "TMPDIR": str(folder), "COLUMNS": "100"}


def replacements(postgres: Server, valkey: Server) -> dict[str, str]:
    """Return what stands on the page, and what this run has in its place: ports that are free, and its own servers."""
    free = ports(None)
    database = urlsplit(postgres.url)
    return {
        "postgres:PASSWORD@127.0.0.1:5432/shop": postgres.url.partition("://")[2],
        "127.0.0.1:5432/shop": f"{database.hostname}:{database.port}{database.path}",
        "redis://127.0.0.1:6379/0": valkey.url,
        **{port: str(next(free)) for port in ("8000", "8001", "8080")},
    }
