"""The embedded Valkey."""

import asyncio
import os
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.server import HOST, Server, ports, valkey_server
from hookseal.embedded.valkey import _settings, _valkey, valkey
from hookseal.errors import Unavailable
from tests.embedded.processes import arguments, is_alive, is_open, owner, taken_port

pytestmark = pytest.mark.req("OPS-08")


async def test_the_url_connects_and_nothing_is_left() -> None:
    """The url, with its password, connects to an empty server; nothing is left afterwards."""
    with scratch(for_servers()) as folder:
        async with valkey(folder, durable=False) as server, Redis.from_url(server.url) as client:
            assert 0 == await client.dbsize()
            assert is_open(server.port)
        assert not is_alive(server.pid)
        assert not is_open(server.port)


async def test_a_wrong_password_is_refused(own_valkey: Server) -> None:
    """Without the password it answers nothing; the password is in no command line."""
    with pytest.raises(AuthenticationError):
        async with Redis(host=HOST, port=own_valkey.port) as client:
            await client.ping()
    password = own_valkey.url.removeprefix("redis://:").split("@")[0]
    assert password not in arguments(own_valkey.pid)
    assert password not in repr(own_valkey)


async def test_valkey_listens_on_loopback_only(own_valkey: Server) -> None:
    """The server listens on the loopback address, and never evicts a key when memory is full."""
    async with Redis.from_url(own_valkey.url, decode_responses=True) as client:
        assert {"bind": "127.0.0.1"} == await client.config_get("bind")
        assert {"maxmemory-policy": "noeviction"} == await client.config_get("maxmemory-policy")


async def test_valkey_runs_as_the_account(own_valkey: Server) -> None:
    """For root it runs as another user, else as this user."""
    account = for_servers()
    assert (account.uid if account else os.geteuid()) == owner(own_valkey.pid)


async def test_valkey_has_the_given_number_of_databases(servers_folder: Path) -> None:
    async with (
        valkey(servers_folder, durable=False, databases=100) as server,
        Redis.from_url(server.url.removesuffix("0") + "99") as client,
    ):
        assert await client.ping()


@pytest.mark.parametrize(("durable", "kept"), [(True, b"1"), (False, None)])
async def test_a_second_start_keeps_the_data(durable: bool, kept: bytes | None, servers_folder: Path) -> None:
    """A second start in the same folder finds the data of the first, unless `durable` is false."""
    async with valkey(servers_folder, durable=durable) as server, Redis.from_url(server.url) as client:
        await client.set("key", "1")
    async with valkey(servers_folder, durable=durable) as server, Redis.from_url(server.url) as client:
        assert kept == await client.get("key")


async def test_a_busy_port_is_skipped(servers_folder: Path) -> None:
    """If the port is taken meanwhile, the next one is tried."""
    settings = _settings(durable=False, databases=16)
    squatter, busy = taken_port()
    with squatter:
        candidates = iter([busy, *ports(None)])
        async with _valkey(servers_folder, candidates, settings=settings, binary=valkey_server()) as server:
            assert busy != server.port


async def test_a_failed_start_shows_the_log(servers_folder: Path) -> None:
    """A server that ends at start is reported with the end of its log."""
    with pytest.raises(Unavailable, match="much-sand"):
        async with _valkey(servers_folder, ports(None), settings={"much-sand": "1"}, binary=valkey_server()):
            pass


async def test_a_frozen_server_answers_after_thaw(own_valkey: Server) -> None:
    """A frozen server keeps its connections and answers nothing; after `thaw` it answers the pending command."""
    async with Redis.from_url(own_valkey.url) as client:
        await client.ping()
        own_valkey.freeze()
        question = asyncio.ensure_future(client.get("key"))
        await asyncio.wait({question}, timeout=0.3)
        assert not question.done()
        own_valkey.thaw()
        assert await question is None
