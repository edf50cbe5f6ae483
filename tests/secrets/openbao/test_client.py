"""The client of OpenBao, on a real server."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from hookseal.errors import Defect
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.openbao.client import Absence, OpenBaoDenied, OpenBaoNotFound, OpenBaoUnavailable, opened
from hookseal.secrets.openbao.server import AppRole, OpenBaoServer
from tests.doubles.certificates import authority, issued
from tests.doubles.clock import FakeClock
from tests.doubles.openbao import ROOT_TOKEN, as_root, openbao, token_for

LOOKUP = "auth/token/lookup-self"


def server(address: str, credentials: str | SecretMaterial | AppRole, **more: str) -> OpenBaoServer:
    """Return that server with these credentials."""
    known = SecretMaterial(credentials.encode()) if isinstance(credentials, str) else credentials
    return OpenBaoServer(address=address, credentials=known, namespace=more.get("namespace"))


async def approle(address: str, *, ttl: str) -> AppRole:
    """Return a new role, whose tokens live for `ttl`."""
    mounts = await as_root(address, "GET", "sys/auth")
    if "approle/" not in mounts:
        await as_root(address, "POST", "sys/auth/approle", {"type": "approle"})
    path = f"auth/approle/role/role-{ttl}"
    await as_root(address, "POST", path, {"token_policies": "default", "token_ttl": ttl})
    role = await as_root(address, "GET", f"{path}/role-id")
    made = await as_root(address, "POST", f"{path}/secret-id", {})
    return AppRole(role_id=role["data"]["role_id"], secret_id=SecretMaterial(made["data"]["secret_id"].encode()))


async def test_a_token_has_the_rights_of_its_policy(openbao_address: str) -> None:
    """A token reads and writes what its policy permits, and nothing else."""
    token = await token_for(openbao_address, 'path "secret/data/mine" { capabilities = ["create", "read"] }')

    async with opened(server(openbao_address, token)) as client:
        await client.request("POST", "secret/data/mine", {"data": {"a": "b"}})
        assert {"a": "b"} == (await client.request("GET", "secret/data/mine"))["data"]["data"]
        with pytest.raises(OpenBaoDenied, match="denies this token the request to secret/data/another"):
            await client.request("GET", "secret/data/another")


async def test_special_characters_belong_to_the_name(openbao_address: str) -> None:
    """A question mark, a hash or a percent sign belongs to the name."""
    async with opened(server(openbao_address, ROOT_TOKEN)) as client:
        await client.request("POST", "secret/data/a?b#c%2Fd", {"data": {"a": "b"}})
        assert ["a?b#c%2Fd"] == [
            key for key in (await client.request("LIST", "secret/metadata"))["data"]["keys"] if key.startswith("a?")
        ]
        with pytest.raises(OpenBaoNotFound):
            await client.request("GET", "secret/data/a")


@pytest.mark.parametrize("path", ["secret/data/../other", "./sys/seal", "secret//a", ""])
async def test_a_relative_path_is_never_sent(path: str) -> None:
    """A part that a URL would resolve is never sent."""
    async with opened(server("http://127.0.0.1:1", "t")) as client:
        with pytest.raises(Defect):
            await client.request("GET", path)


async def test_an_approle_renews_before_expiry_and_logs_in_after_revocation(openbao_address: str) -> None:
    """By AppRole the client logs in once, renews the token before it expires, and logs in if it was revoked."""
    clock = FakeClock()
    role = await approle(openbao_address, ttl="300s")

    async with opened(server(openbao_address, role), clock=clock) as client:
        tokens = [(await client.request("GET", LOOKUP))["data"]["id"] for _ in range(2)]
        clock.elapsed += 201.0  # two thirds of 300 s
        tokens.append((await client.request("GET", LOOKUP))["data"]["id"])
        await as_root(openbao_address, "POST", "auth/token/revoke", {"token": tokens[-1]})
        found = await asyncio.gather(*(client.request("GET", LOOKUP) for _ in range(5)))

    assert tokens[0] == tokens[1] == tokens[2]
    assert 1 == len({each["data"]["id"] for each in found} - {*tokens})


async def test_a_refused_approle_login_names_the_variables(openbao_address: str) -> None:
    """A wrong secret id is denied, and names the variables; so is a login that is not enabled."""
    role = AppRole(role_id=(await approle(openbao_address, ttl="60s")).role_id, secret_id=SecretMaterial(b"x"))
    await as_root(openbao_address, "POST", "sys/namespaces/without-logins", {})

    for more in ({}, {"namespace": "without-logins"}):
        async with opened(server(openbao_address, role, **more)) as client:
            with pytest.raises(OpenBaoDenied, match=r"bao auth enable approle.*BAO_SECRET_ID"):
                await client.request("GET", LOOKUP)


async def test_a_token_is_renewed_after_two_thirds_of_its_time(openbao_address: str) -> None:
    """A given token is renewed once two thirds of its time have passed."""
    clock = FakeClock()
    token = await token_for(openbao_address, ttl="1000s")

    async with opened(server(openbao_address, token), clock=clock) as client:
        assert (await client.request("GET", LOOKUP))["data"].get("last_renewal") is None
        clock.elapsed += 667.0
        assert (await client.request("GET", LOOKUP))["data"]["last_renewal"] is not None


async def test_a_namespace_has_its_own_mounts(openbao_address: str) -> None:
    """A namespace has mounts of its own."""
    await as_root(openbao_address, "POST", "sys/namespaces/team", {})

    async with opened(server(openbao_address, ROOT_TOKEN, namespace="team")) as client:
        await client.request("POST", "sys/mounts/only-here", {"type": "kv-v2"})
        assert "only-here/" in await client.request("GET", "sys/mounts")
    assert "only-here/" not in await as_root(openbao_address, "GET", "sys/mounts")


async def test_sealed_and_unreachable_servers_are_distinguished() -> None:
    """A sealed server and an unreachable one are distinguished."""
    async with openbao() as own, opened(server(own.url, ROOT_TOKEN)) as client:
        await client.request("GET", LOOKUP)
        await client.request("PUT", "sys/seal", {})
        with pytest.raises(OpenBaoUnavailable) as sealed:
            await client.request("GET", LOOKUP)
    assert Absence.SEALED is sealed.value.absence

    async with opened(server(own.url, ROOT_TOKEN)) as client:
        with pytest.raises(OpenBaoUnavailable) as gone:
            await client.request("GET", LOOKUP)
    assert Absence.UNREACHABLE is gone.value.absence


@asynccontextmanager
async def answering(
    status: int, body: bytes = b"", *, context: ssl.SSLContext | None = None, hang: bool = False
) -> AsyncIterator[str]:
    """Answer every request in this way; yield the base URL."""
    released = asyncio.Event()

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        if hang:
            await released.wait()
        return web.Response(status=status, body=body, headers={"Location": "http://127.0.0.1:1/"})

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"http{'s' if context else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        released.set()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "absence"),
    [(307, b"", Absence.STANDBY), (200, b"x" * 1_048_577, Absence.FAILING), (200, b"<html>", Absence.FOREIGN)],
)
async def test_redirects_and_long_answers_are_refused(status: int, body: bytes, absence: Absence) -> None:
    """A redirect is not followed, and an answer that is too long is not kept."""
    async with answering(status, body) as address, opened(server(address, "t")) as client:
        with pytest.raises(OpenBaoUnavailable) as raised:
            await client.request("GET", "a")
    assert absence is raised.value.absence


async def test_a_request_ends_within_its_time() -> None:
    """A request ends within its time."""
    async with answering(200, hang=True) as address, opened(server(address, "t"), seconds=0.2) as client:
        with pytest.raises(OpenBaoUnavailable, match="does not answer"):
            await client.request("GET", "a")


async def test_only_the_given_authorities_are_trusted(tmp_path: Path) -> None:
    """A server is trusted under the given authorities, and those of the system do not count beside them."""
    ours = authority()
    context = issued("127.0.0.1", by=ours).server(tmp_path)
    expired = issued("127.0.0.1", by=ours, days=(-2, -1)).server(tmp_path)

    async with answering(200, b"{}", context=context) as address:
        trusting = replace(server(address, "t"), authorities=ours.pem)
        async with opened(trusting) as client:
            assert {} == await client.request("GET", "a")
        await _untrusted(replace(trusting, authorities=authority("another").pem))
    async with answering(200, b"{}", context=expired) as address:
        await _untrusted(replace(trusting, address=address))
    async with answering(200, b"{}") as address:
        await _untrusted(replace(trusting, address=address.replace("http:", "https:")))


async def _untrusted(there: OpenBaoServer) -> None:
    async with opened(there) as client:
        with pytest.raises(OpenBaoUnavailable, match="BAO_CACERT and the clock of this machine"):
            await client.request("GET", "a")


async def test_neither_proxy_nor_netrc_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token goes to BAO_ADDR by no proxy that the environment names, and with no password of `.netrc`."""
    asked: dict[str, list[web.BaseRequest]] = {"proxy": [], "server": []}

    def recorded(name: str) -> web.Server:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            asked[name].append(request)
            return web.json_response({})

        return web.Server(answer)

    addresses = {}
    async with AsyncExitStack() as stack:
        for name in asked:
            runner = web.ServerRunner(recorded(name), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            addresses[name] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login ada password hunter2\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        for proxied in (False, True):
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
                if proxied and "no" not in name.lower():
                    monkeypatch.setenv(name, addresses["proxy"])
            async with opened(server(addresses["server"], "t")) as client:
                await client.request("GET", "a")

    assert [] == asked["proxy"]
    assert 4 == len(asked["server"])  # each looks its token up first
    assert not any("Authorization" in request.headers for request in asked["server"])
