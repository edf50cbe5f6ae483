"""A roll to the next version and back, in a fleet under load: nothing is lost, and nothing is sent twice.

Once this version is the one before: the next one is a copy of it with one more revision, run as a program of its own.
And once it is the next one: the version before is the wheel of the newest tag or, while there is no release, of the
last commit that knew only the revision before.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from hookseal.postgres.schema import revision
from tests.cli.command import hookseal
from tests.faults.comparison import Report
from tests.faults.previous import MIGRATION, Previous, previous_commit, unpacked
from tests.faults.site import (
    BATCH,
    CALM,
    CALM_TIMEOUT_MS,
    SHORT,
    SHORT_TIMEOUT_MS,
    TENANT,
    Site,
    open_site,
    recording_receiver,
    slowly,
)
from tests.schema.later import IN_USE, later_program
from tests.worker.environment import environment
from tests.worker.fleet import Worker, fleet

PER_SECOND = 60  # events, of two deliveries each
REQUESTS = 60  # in each phase


@asynccontextmanager
async def load(site: Site) -> AsyncIterator[None]:
    """Publish without a pause during the block, by the statements of this version."""
    is_over = asyncio.Event()

    async def publish() -> None:
        while not is_over.is_set():
            await site.publish(BATCH, per_second=PER_SECOND)

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        is_over.set()
        await publishing


async def end(site: Site, worker: Worker, *, kills: bool) -> None:
    """Kill or stop the worker."""
    await (site.fleet.kill(worker) if kills else worker.stop())


async def deliver(site: Site) -> None:
    """Wait until the workers have sent as many requests as in each phase."""
    await site.receiver.wait_for(len(site.receiver.requests) + REQUESTS)


def require_nothing_lost(found: Report, *, kills: bool) -> None:
    """Fail if anything is lost or, unless workers were killed, was sent twice: a kill repeats what it had sent."""
    found.require(lost=0, unexplained=0, **({} if kills else {"duplicates": 0, "unknown": 0}))


async def roll(site: Site, new: str, *, kills: bool) -> Report:
    """Replace all workers by the next version, and those by this one, under load; compare at the end.

    `new` is the PYTHONPATH with which a worker is one of the next version. With `kills` half of those that are
    replaced are killed.
    """
    database = {"DATABASE_URL": site.database_url}
    site.receiver.answer = slowly(0.1)
    (first, second), third = await asyncio.gather(site.fleet.start_many(2), site.fleet.start(PYTHONPATH=new))
    async with load(site):
        await deliver(site)
        assert 0 == (await hookseal("db", "upgrade", PYTHONPATH=new, **database)).code
        await end(site, first, kills=kills)
        started_again, fourth = await asyncio.gather(site.fleet.start(), site.fleet.start(PYTHONPATH=new))
        await deliver(site)

        await asyncio.gather(end(site, second, kills=kills), started_again.stop())
        await deliver(site)

        assert 0 == (await hookseal("db", "upgrade", **database)).code
        await site.fleet.start_many(2)
        await asyncio.gather(end(site, third, kills=kills), fourth.stop())
        await deliver(site)
    await site.wait_until_settled()
    return await site.report()


@pytest.mark.timeout(300)
@pytest.mark.req("OPS-13")
@pytest.mark.req("OPS-09", part="under-load")
@pytest.mark.parametrize("kills", [False, True], ids=["stopped", "killed"])
async def test_a_roll_forward_and_back_loses_nothing(
    kills: bool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Both versions run together before and after the migration; each starts on the schema of the other.

    What a killed worker had sent and not recorded is sent again, as after any kill; nothing else is.
    """
    new = str(later_program(tmp_path / "later", *IN_USE))
    async with open_site(database_url, redis_url, tmp_path, calm=not kills) as site:
        found = await roll(site, new, kills=kills)
        assert f"{int(revision.EXPECTED) + 1:04}" == await revision.current(site.pool)
    require_nothing_lost(found, kills=kills)


@asynccontextmanager
async def made_by(
    previous: Previous, database_url: str, redis_url: str, folder: Path, *, calm: bool
) -> AsyncIterator[Site]:
    """Yield a site whose schema, keys and two endpoints the commands of that version have made."""
    settings = environment(database_url, redis_url, **(CALM if calm else SHORT))
    timeout_ms = str(CALM_TIMEOUT_MS if calm else SHORT_TIMEOUT_MS)

    async def run(*arguments: str) -> str:
        ended = await hookseal(*arguments, "--json", PYTHONPATH=previous.path, **settings)
        assert 0 == ended.code, ended.err
        return str(ended.json.get("secret"))

    await run("db", "upgrade")
    await run("key", "init")
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=6) as pool,
        recording_receiver() as receiver,
        fleet(settings, folder) as workers,
    ):
        for path in ("/0", "/1"):
            to = (
                "--tenant",
                TENANT,
                "--url",
                receiver.base_url + path,
                "--event-type",
                "*",
                "--timeout-ms",
                timeout_ms,
            )
            receiver.secrets[path] = await run("endpoint", "add", *to, "--print-secret")
        yield Site(
            pool=pool,
            installation=None,
            database_url=database_url,
            redis_url=redis_url,
            receiver=receiver,
            fleet=workers,
        )


async def follow(site: Site, previous: Previous, *, kills: bool) -> Report:
    """Replace all workers of that version by this one under load, and back if that version may run on the new schema.

    With `kills` those that are replaced are killed.
    """
    site.receiver.answer = slowly(0.1)
    first, second = await site.fleet.start_many(2, PYTHONPATH=previous.path)
    async with load(site):
        await deliver(site)
        upgraded = await hookseal("db", "upgrade", DATABASE_URL=site.database_url)
        assert 0 == upgraded.code, upgraded.err
        await deliver(site)  # by what ran before
        third, _ = await site.fleet.start_many(2)
        await end(site, first, kills=kills)
        await deliver(site)

        returns = await site.fleet.start(PYTHONPATH=previous.path, wait=False)
        # 0001 cannot read which versions a schema admits, so it refuses each newer one.
        if previous.knows > "0001" and previous.knows >= (await revision.runs_from(site.pool) or ""):
            await returns.wait_until_ready()
            await end(site, third, kills=kills)
            await deliver(site)
            await returns.stop()
        else:
            assert 78 == await returns.ended()
        await end(site, second, kills=kills)
        await deliver(site)
    await site.wait_until_settled()
    return await site.report()


@pytest.mark.timeout(300)
@pytest.mark.req("OPS-13")
@pytest.mark.req("OPS-09", part="under-load")
@pytest.mark.parametrize("kills", [False, True], ids=["stopped", "killed"])
async def test_the_version_before_is_replaced_and_nothing_is_lost(
    kills: bool, empty_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The version before is run from its wheel; its workers deliver through the upgrade of the schema and after it."""
    commit = await asyncio.to_thread(previous_commit)
    if commit is None:
        pytest.skip("this clone does not have the commits of the version before")
    previous = await asyncio.to_thread(unpacked, commit, tmp_path / "previous")
    async with made_by(previous, empty_database_url, redis_url, tmp_path, calm=not kills) as site:
        found = await follow(site, previous, kills=kills)
        assert revision.EXPECTED == await revision.current(site.pool)
    require_nothing_lost(found, kills=kills)


def test_the_version_before_is_the_newest_tag_or_that_of_the_revision_before(tmp_path: Path) -> None:
    """A tag of HEAD itself is this version. A clone without the history knows no version before."""
    (tree := tmp_path / "tree").mkdir()

    def git(*arguments: str, at: Path = tree) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "protocol.file.allow=always")
        return subprocess.check_output(["git", "-C", str(at), *who, *arguments], text=True).strip()

    def commit(name: str) -> str:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
        git("add", "--all")
        git("commit", "--quiet", f"--message={name}")
        return git("rev-parse", "HEAD")

    git("init", "--quiet")
    commit("a")
    last_before = commit("b")
    commit(MIGRATION)
    commit("c")
    found = previous_commit(tree)
    git("clone", "--quiet", "--depth=1", tree.as_uri(), "shallow", at=tmp_path)
    git("tag", "v0.9", "HEAD^")
    git("tag", "v0.10", "HEAD^")
    git("tag", "v1.0")

    assert found is not None
    assert last_before == git("rev-parse", found)
    assert "v0.10" == previous_commit(tree)
    assert previous_commit(tmp_path / "shallow") is None
    assert previous_commit(tmp_path) is None
