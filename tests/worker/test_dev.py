"""The provider `dev` in a worker: it warns that it loses secrets, stores nothing, and is refused in production."""

import os
from pathlib import Path

import asyncpg
import pytest

from hookseal.demo.process import worker_process
from tests.cli.command import hookseal
from tests.worker.environment import environment
from tests.worker.world import Worker

pytestmark = pytest.mark.req("SEC-19")
DEV = {"SECRETS_PROVIDER": "dev", "SECRETS_MASTER_KEY": ""}


async def test_dev_warns_and_stores_nothing(
    pool: "asyncpg.Pool[asyncpg.Record]", database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A worker with `dev` is ready, warns at the start, and stores no key and no secret in the database."""
    log_file = tmp_path / "worker.log"
    variables = os.environ | environment(database_url, redis_url, **DEV)
    async with worker_process(variables, log_file) as process:
        worker = Worker(process=process, log_file=log_file)
        assert 200 == (await worker.get("/readyz"))[0]

    [warned] = [line for line in worker.log if line["event"] == "secrets.in_memory"]
    assert "warning" == warned["level"]
    assert "every secret is lost when this process ends" in warned["reason"]
    assert 0 == await pool.fetchval(
        "SELECT (SELECT count(*) FROM hookseal.secret_records) + (SELECT count(*) FROM hookseal.secret_keys)"
    )


async def test_dev_does_not_start_in_production(database_url: str, redis_url: str) -> None:
    """In production the provider `dev` is refused (78), with the reason and the provider to use."""
    settings = environment(database_url, redis_url, **DEV, HOOKSEAL_ENV="production", HOOKSEAL_ALLOW_HTTP="")
    ended = await hookseal("worker", **settings)

    assert (78, "") == (ended.code, ended.out)
    assert "SECRETS_PROVIDER may not be dev in production, where it would lose every secret at a restart: use db" in (
        ended.err
    )
