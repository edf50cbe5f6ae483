"""The files of the urls of PostgreSQL and Redis are replaced while a worker runs, as an agent of a vault does."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from hookseal.embedded.server import Server
from hookseal.postgres.pool import Pool
from tests.doubles.logins import login
from tests.worker import world as worlds
from tests.worker.world import Receiver, World


def with_password(url: str, password: str) -> str:
    """Return the same url with another password."""
    parts = urlsplit(url)
    user = f"{parts.username or ''}:{password}"
    return parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()


def private(file: Path, text: str) -> str:
    """Write a private file, and return its path."""
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


@pytest.mark.req("DUR-04", "SEC-13")
@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_worker_logs_in_with_what_the_files_say_now(
    begun_pool: Pool, database_url: str, own_valkey: Server, receiver: Receiver, tmp_path: Path, processes: str
) -> None:
    """New passwords, cut sessions and new files: the worker delivers on, without a restart."""
    world: World = await worlds.world(begun_pool, database_url, own_valkey.url, tmp_path)
    await world.endpoint(f"{receiver.base_url}/hook")
    async with (
        login(begun_pool, database_url, "hookseal_worker") as (role, url),
        Redis.from_url(own_valkey.url) as redis,
    ):
        postgresql, valkey = tmp_path / "postgresql", tmp_path / "valkey"
        files = {
            "DATABASE_URL_FILE": private(postgresql, url),
            "REDIS_URL_FILE": private(valkey, own_valkey.url),
        }
        async with world.worker(DATABASE_URL="", REDIS_URL="", HOOKSEAL_PROCESSES=processes, **files) as worker:
            await world.state((await world.publish())[0], "delivered")

            await begun_pool.execute(f"ALTER ROLE {role} PASSWORD 'hunter-two'")
            private(postgresql, with_password(url, "hunter-two"))
            await redis.config_set("requirepass", "hunter-two")
            private(valkey, with_password(own_valkey.url, "hunter-two"))
            await begun_pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role.strip('"')
            )
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

            for ring in [(await world.publish(rung=False))[0] for _ in range(4)]:
                await world.state(ring, "delivered")
            assert "hunter-two" not in worker.log_file.read_text()
