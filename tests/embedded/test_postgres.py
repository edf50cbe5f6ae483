"""The embedded PostgreSQL."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from hookseal.embedded.folders import for_servers, scratch, state_folder
from hookseal.embedded.postgres import _postgres, postgres
from hookseal.embedded.process import children
from hookseal.embedded.server import Server, ports, postgres_tree
from hookseal.errors import Unavailable
from tests.embedded.processes import arguments, is_alive, is_open, owner, program, taken_port
from tests.fresh import initialised
from tests.servers import sibling

pytestmark = pytest.mark.req("OPS-08")


async def fetch_value(url: str, question: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def exists(path: Path) -> bool:
    return path.exists()


def read(path: Path) -> str:
    return path.read_text()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def modes_of_files(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()}


def make_unusable(data: Path) -> None:
    """Create a data folder that no server can use."""
    data.mkdir()
    (data / "postgresql.conf").write_text("sand = much")


def failing_tree(tree: Path) -> Path:
    """Create a tree whose `initdb` fails half-way."""
    (tree / "bin").mkdir(parents=True)
    initdb = tree / "bin" / "initdb"
    initdb.write_text("#!/bin/sh\nmkdir unfinished; echo no room left; exit 1\n")
    initdb.chmod(0o755)
    return tree


def private_copy(folder: Path) -> Path:
    folder.chmod(0o700)
    installed = postgres_tree()
    tree = folder / installed.parent.name / installed.name
    shutil.copytree(installed, tree, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = installed.parent.with_name(f"{installed.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return tree


@pytest.fixture
def private_folder(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that no other user can reach; state that was placed elsewhere for it is removed."""
    tmp_path.chmod(0o700)
    yield tmp_path
    for place in tmp_path.glob("*.place"):
        shutil.rmtree(Path(place.read_text().rstrip("\n")).parent)


async def test_the_url_connects_and_nothing_is_left() -> None:
    """The url, with its password, connects to PostgreSQL 14 or newer; nothing is left afterwards."""
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False) as server:
            assert "hookseal" == await fetch_value(server.url, "SELECT current_database()")
            assert 140000 <= int(str(await fetch_value(server.url, "SHOW server_version_num")))
            assert is_open(server.port)
        assert not is_alive(server.pid)
        assert not is_open(server.port)
    assert not exists(folder)


async def test_another_postgresql_may_be_run() -> None:
    """Its tree is given, for instance that of an older version, which knows no built-in locale."""
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False, tree=postgres_tree().with_name("pginstall")) as server:
            version = int(str(await fetch_value(server.url, "SHOW server_version_num")))

    assert 160000 <= version < 170000


async def test_a_wrong_password_is_refused(own_postgres: Server) -> None:
    """A wrong password is refused; the right one is in no log and no command line."""
    password = own_postgres.url.split(":")[2].split("@")[0]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fetch_value(own_postgres.url.replace(password, "wrong"), "SELECT 1")
    assert password not in arguments(own_postgres.pid)
    assert password not in repr(own_postgres)


async def test_postgresql_listens_on_loopback_only(own_postgres: Server) -> None:
    """The server listens on the loopback address and creates no Unix socket."""
    assert "127.0.0.1" == await fetch_value(own_postgres.url, "SHOW listen_addresses")
    assert "" == await fetch_value(own_postgres.url, "SHOW unix_socket_directories")


@pytest.mark.parametrize(("durable", "fsync"), [(True, "on"), (False, "off")])
async def test_commits_survive_unless_not_durable(durable: bool, fsync: str, servers_folder: Path) -> None:
    """Committed data survives a power failure, unless `durable` is false."""
    await initialised(servers_folder)
    async with postgres(servers_folder, durable=durable) as server:
        assert fsync == await fetch_value(server.url, "SHOW fsync")


async def test_postgresql_runs_as_the_account(own_postgres: Server) -> None:
    """For root it runs as another user, else as this user."""
    account = for_servers()
    assert (account.uid if account else os.geteuid()) == owner(own_postgres.pid)


async def test_a_failing_statement_logs_no_values(servers_folder: Path) -> None:
    await initialised(servers_folder)
    async with postgres(servers_folder, durable=False) as server:
        await fetch_value(server.url, "CREATE TABLE t (a text PRIMARY KEY)")
        await fetch_value(server.url, "INSERT INTO t VALUES ('a-value-to-hide')")
        with pytest.raises(asyncpg.UniqueViolationError):
            await fetch_value(server.url, "INSERT INTO t VALUES ('a-value-to-hide')")
    log = read(servers_folder / "postgres.log")
    assert "duplicate key" in log
    assert "a-value-to-hide" not in log


async def test_a_second_start_keeps_data_and_password(private_folder: Path) -> None:
    async with postgres(private_folder, durable=False) as first:
        await fetch_value(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        data = await fetch_value(first.url, "SHOW data_directory")
    assert str(first.folder / "data") == data
    async with postgres(private_folder, port=first.port, durable=False) as second:
        assert first.url == second.url
        assert 42 == await fetch_value(second.url, "SELECT answer FROM kept")
    assert {0o600} == modes_of_files(private_folder)


async def test_a_busy_port_is_skipped(servers_folder: Path) -> None:
    """If the port is taken meanwhile, the next one is tried."""
    await initialised(servers_folder)
    squatter, busy = taken_port()
    with squatter:
        candidates = iter([busy, *ports(None)])
        async with _postgres(servers_folder, candidates, durable=False, tree=postgres_tree()) as server:
            assert busy != server.port
            assert 1 == await fetch_value(server.url, "SELECT 1")


async def test_a_busy_given_port_is_an_error(servers_folder: Path) -> None:
    await initialised(servers_folder)
    squatter, busy = taken_port()
    with squatter, pytest.raises(Unavailable, match="Address already in use"):
        async with postgres(servers_folder, port=busy, durable=False):
            pass


async def test_a_failed_start_shows_the_log(servers_folder: Path) -> None:
    """A server that ends at start is reported with the end of its log."""
    make_unusable(state_folder(servers_folder, "postgres", for_servers()) / "data")
    with pytest.raises(Unavailable, match="embedded PostgreSQL does not start"):
        async with postgres(servers_folder, durable=False):
            pass


async def test_a_failed_data_folder_is_created_at_the_next_start(servers_folder: Path) -> None:
    """If the data folder cannot be created, the error says why, and the next start creates it."""
    tree = failing_tree(servers_folder / "tree")
    with pytest.raises(Unavailable, match="no room left"):
        async with _postgres(servers_folder, ports(None), durable=False, tree=tree):
            pass
    assert ["unfinished"] == names(servers_folder / "postgres")
    async with postgres(servers_folder, durable=False) as server:
        assert 1 == await fetch_value(server.url, "SELECT 1")


async def test_unreachable_programs_are_copied(tmp_path: Path, servers_folder: Path) -> None:
    """The server starts from programs that only this user can reach, as in a checkout in a private home folder."""
    tree = private_copy(tmp_path)
    async with _postgres(servers_folder, ports(None), durable=False, tree=tree) as server:
        running = program(server.pid)
        assert (for_servers() is None) == running.is_relative_to(tmp_path)
        assert 1 == await fetch_value(server.url, "SELECT 1")
    assert for_servers() is None or not exists(running)


async def test_a_frozen_server_answers_after_thaw(own_postgres: Server) -> None:
    """A frozen server keeps its connections and answers nothing; after `thaw` it answers the pending query."""
    connection = await asyncpg.connect(own_postgres.url)
    own_postgres.freeze()
    question = asyncio.create_task(connection.fetchval("SELECT 42"))
    await asyncio.wait({question}, timeout=0.3)
    assert not question.done()
    own_postgres.thaw()
    assert 42 == await question
    await connection.close()


async def test_a_cancelled_start_leaves_no_process(servers_folder: Path) -> None:
    """A start that is cancelled half-way ends the process."""
    before = children(os.getpid())
    starting = asyncio.Event()

    def candidates() -> Iterator[int]:
        for port in ports(None):
            asyncio.get_running_loop().call_soon(starting.set)
            yield port

    async def run() -> None:
        async with _postgres(servers_folder, candidates(), durable=False, tree=postgres_tree()):
            pytest.fail("the server answered before the start was cancelled")

    task = asyncio.create_task(run())
    await starting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert before == children(os.getpid())


async def test_the_user_may_create_databases(own_postgres: Server) -> None:
    await fetch_value(own_postgres.url, "CREATE DATABASE another")
    assert "another" == await fetch_value(sibling(own_postgres.url, "another"), "SELECT current_database()")
