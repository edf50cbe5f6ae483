"""The client of OpenBao on a real server: what its answers mean, its requests, and how it keeps a token."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from hookseal.errors import Cause, Defect, SecretDenied, SecretError, SecretNotFound, SecretUnavailable
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.openbao.client import (
    Absence,
    OpenBao,
    OpenBaoDenied,
    OpenBaoNotFound,
    OpenBaoRefused,
    OpenBaoUnavailable,
    content,
    opened,
)
from hookseal.secrets.openbao.server import AppRole, OpenBaoServer
from tests.doubles.certificates import authority, issued
from tests.doubles.clock import FakeClock
from tests.doubles.faulty_proxy import AlteredAnswer, LateAnswer, faulty_proxy
from tests.doubles.openbao import ROOT_TOKEN, as_root, openbao, token_for
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-18")

ADDRESS = "https://bao.example:8200"
CANARY = "canary-in-an-answer"


def meaning(status: int, body: bytes) -> object:
    """Return the content, or the error."""
    try:
        return content(status, body, address=ADDRESS, path="secret/data/x")
    except (SecretError, SecretUnavailable) as error:
        return error


@pytest.mark.parametrize(
    ("status", "body", "expected"), [(200, b'{"data": {"a": 1}}', {"data": {"a": 1}}), (204, b"", {}), (200, b"{}", {})]
)
def test_a_successful_answer_is_its_object(status: int, body: bytes, expected: object) -> None:
    assert expected == meaning(status, body)


@pytest.mark.parametrize(
    ("status", "reasons", "absence"),
    [
        (503, ["Vault is sealed"], Absence.SEALED),
        (500, ["local node not active but active cluster node not found"], Absence.STANDBY),
        (307, [], Absence.STANDBY),
        (429, [], Absence.BUSY),
        (412, ["required index state not present"], Absence.BEHIND),
        (408, [], Absence.FAILING),
        (500, [CANARY], Absence.FAILING),
        (502, [], Absence.FAILING),
    ],
)
def test_a_transient_answer_is_unavailable_and_names_the_remedy(
    status: int, reasons: list[str], absence: Absence
) -> None:
    error = meaning(status, json.dumps({"errors": reasons}).encode())

    assert isinstance(error, OpenBaoUnavailable)
    assert absence is error.absence
    assert absence.format(address=ADDRESS) == str(error)
    assert ADDRESS in str(error)


@pytest.mark.parametrize(("status", "kind"), [(401, SecretDenied), (403, SecretDenied), (404, SecretNotFound)])
def test_a_lasting_refusal_is_not_transient(status: int, kind: type[SecretError]) -> None:
    error = meaning(status, json.dumps({"errors": [CANARY]}).encode())

    assert isinstance(error, kind)
    assert CANARY not in str(error)


@pytest.mark.req("SEC-07", part="causes")
@pytest.mark.parametrize(("method", "right"), [("GET", "read"), ("POST", "create, update"), ("DELETE", "delete")])
def test_a_denial_names_the_right(method: str, right: str) -> None:
    with pytest.raises(SecretDenied, match=rf"to secret/data/x: give its policy that right \({right}\)"):
        content(403, b'{"errors": []}', address=ADDRESS, path="secret/data/x", method=method)


def test_the_reasons_of_a_refusal_are_not_in_the_message() -> None:
    error = meaning(400, json.dumps({"errors": [CANARY]}).encode())

    assert isinstance(error, OpenBaoRefused)
    assert (CANARY,) == error.reasons
    assert CANARY not in str(error)


def test_a_404_says_that_the_version_was_deleted() -> None:
    error = meaning(404, b'{"data": {"metadata": {"version": 3}}}')

    assert isinstance(error, OpenBaoNotFound)
    assert {"metadata": {"version": 3}} == error.data


@pytest.mark.parametrize("status", [200, 400, 403, 404, 429])
@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"x"', b"\xff", pytest.param(b"[" * 100_000, id="deep")])
def test_a_page_of_another_server_is_no_answer(status: int, body: bytes) -> None:
    error = meaning(status, body)

    assert isinstance(error, OpenBaoUnavailable)
    assert f"what answers at {ADDRESS} is not OpenBao" in str(error)
    assert Cause.FOREIGN is error.cause


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"<html>", b"no healthy upstream"])
def test_a_load_balancer_without_a_server_is_not_another_server(status: int, body: bytes) -> None:
    error = meaning(status, body)

    assert isinstance(error, OpenBaoUnavailable)
    assert f"what is before OpenBao at {ADDRESS} answers {status}: OpenBao is down or sealed" in str(error)
    assert Cause.FAILING is error.cause


@pytest.mark.req("SEC-07", part="causes")
@pytest.mark.parametrize(
    ("status", "reason", "cause"),
    [
        (503, "Vault is sealed", Cause.SEALED),
        (429, "rate limit quota exceeded", Cause.THROTTLED),
        (500, "internal", Cause.FAILING),
    ],
)
def test_the_cause_of_an_absence_is_named(status: int, reason: str, cause: Cause) -> None:
    error = meaning(status, json.dumps({"errors": [reason]}).encode())

    assert isinstance(error, OpenBaoUnavailable)
    assert cause is error.cause


LOOKUP = "auth/token/lookup-self"


def server(address: str, credentials: str | SecretMaterial | AppRole, **more: str) -> OpenBaoServer:
    known = SecretMaterial(credentials.encode()) if isinstance(credentials, str) else credentials
    return OpenBaoServer(address=address, credentials=known, namespace=more.get("namespace"))


async def role_of(address: str, name: str, **limits: object) -> AppRole:
    """Return a new role of this name with these limits, and a secret id of it."""
    if "approle/" not in await as_root(address, "GET", "sys/auth"):
        await as_root(address, "POST", "sys/auth/approle", {"type": "approle"})
    path = f"auth/approle/role/{name}"
    await as_root(address, "POST", path, {"token_policies": "default"} | limits)
    role = await as_root(address, "GET", f"{path}/role-id")
    return AppRole(role_id=role["data"]["role_id"], secret_id=await secret_id(address, name))


async def secret_id(address: str, name: str) -> SecretMaterial:
    """Return a new secret id of that role."""
    made = await as_root(address, "POST", f"auth/approle/role/{name}/secret-id", {})
    return SecretMaterial(made["data"]["secret_id"].encode())


# The client of OpenBao, on a real server.


async def test_a_token_has_the_rights_of_its_policy(openbao_address: str) -> None:
    token = await token_for(openbao_address, 'path "secret/data/mine" { capabilities = ["create", "read"] }')

    async with opened(server(openbao_address, token)) as client:
        await client.request("POST", "secret/data/mine", {"data": {"a": "b"}})
        assert {"a": "b"} == (await client.request("GET", "secret/data/mine"))["data"]["data"]
        with pytest.raises(OpenBaoDenied, match="denies this token the request to secret/data/another"):
            await client.request("GET", "secret/data/another")


async def test_special_characters_belong_to_the_name(openbao_address: str) -> None:
    async with opened(server(openbao_address, ROOT_TOKEN)) as client:
        await client.request("POST", "secret/data/a?b#c%2Fd", {"data": {"a": "b"}})
        assert ["a?b#c%2Fd"] == [
            key for key in (await client.request("LIST", "secret/metadata"))["data"]["keys"] if key.startswith("a?")
        ]
        with pytest.raises(OpenBaoNotFound):
            await client.request("GET", "secret/data/a")


@pytest.mark.parametrize("path", ["secret/data/../other", "./sys/seal", "secret//a", ""])
async def test_a_relative_path_is_never_sent(path: str) -> None:
    async with opened(server("http://127.0.0.1:1", "t")) as client:
        with pytest.raises(Defect):
            await client.request("GET", path)


async def test_an_approle_renews_before_expiry_and_logs_in_after_revocation(openbao_address: str) -> None:
    clock = FakeClock()
    role = await role_of(openbao_address, "for-300s", token_ttl="300s")

    async with opened(server(openbao_address, role), clock=clock) as client:
        tokens = [(await client.request("GET", LOOKUP))["data"]["id"] for _ in range(2)]
        clock.elapsed += 201.0  # two thirds of 300 s
        tokens.append((await client.request("GET", LOOKUP))["data"]["id"])
        await as_root(openbao_address, "POST", "auth/token/revoke", {"token": tokens[-1]})
        found = await asyncio.gather(*(client.request("GET", LOOKUP) for _ in range(5)))

    assert tokens[0] == tokens[1] == tokens[2]
    assert 1 == len({each["data"]["id"] for each in found} - {*tokens})


async def test_a_refused_approle_login_names_the_variables(openbao_address: str) -> None:
    role = AppRole(
        role_id=(await role_of(openbao_address, "for-60s", token_ttl="60s")).role_id, secret_id=SecretMaterial(b"x")
    )
    await as_root(openbao_address, "POST", "sys/namespaces/without-logins", {})

    for more in ({}, {"namespace": "without-logins"}):
        async with opened(server(openbao_address, role, **more)) as client:
            with pytest.raises(OpenBaoDenied, match=r"bao auth enable approle.*BAO_SECRET_ID"):
                await client.request("GET", LOOKUP)


async def test_a_namespace_has_its_own_mounts(openbao_address: str) -> None:
    await as_root(openbao_address, "POST", "sys/namespaces/team", {})

    async with opened(server(openbao_address, ROOT_TOKEN, namespace="team")) as client:
        await client.request("POST", "sys/mounts/only-here", {"type": "kv-v2"})
        assert "only-here/" in await client.request("GET", "sys/mounts")
    assert "only-here/" not in await as_root(openbao_address, "GET", "sys/mounts")


async def test_sealed_and_unreachable_servers_are_distinguished() -> None:
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
    async with answering(status, body) as address, opened(server(address, "t")) as client:
        with pytest.raises(OpenBaoUnavailable) as raised:
            await client.request("GET", "a")
    assert absence is raised.value.absence


async def test_a_request_ends_within_its_time() -> None:
    async with answering(200, hang=True) as address, opened(server(address, "t"), seconds=0.2) as client:
        with pytest.raises(OpenBaoUnavailable, match="does not answer"):
            await client.request("GET", "a")


async def test_only_the_given_authorities_are_trusted(tmp_path: Path) -> None:
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


# How a client of OpenBao keeps a token: on a real server, whose own clock is real where its time counts.

MINE = "secret/data/mine-alone"
WITHOUT_RENEWAL = (f'path "{LOOKUP}" {{ capabilities = ["read"] }}',)


async def looked_up(client: OpenBao) -> dict[str, Any]:
    """Return what OpenBao knows of the token of the client."""
    return dict((await client.request("GET", LOOKUP))["data"])


async def revoke(address: str, token: SecretMaterial | str) -> None:
    """End a token, as its longest time or an operator does."""
    text = token if isinstance(token, str) else token.reveal().decode()
    await as_root(address, "POST", "auth/token/revoke", {"token": text})


async def test_a_secret_id_of_one_use_serves_for_as_long_as_the_role_permits(openbao_address: str) -> None:
    clock = FakeClock()
    role = await role_of(openbao_address, "once", token_ttl="24s", token_max_ttl="1h", secret_id_num_uses=1)

    async with faulty_proxy(openbao_address) as proxy, opened(_server(proxy.url, role), clock=clock) as client:
        first = (await looked_up(client))["id"]
        for _ in range(10):
            clock.elapsed += 16.1  # two thirds of 24 s
            assert first == (await looked_up(client))["id"]
        assert 1 == proxy.paths.count("/v1/auth/approle/login")
        assert 10 == proxy.paths.count("/v1/auth/token/renew-self")


async def test_a_token_is_renewed_while_there_are_no_requests(openbao_address: str) -> None:
    role = await role_of(openbao_address, "idle", token_ttl="3s", token_max_ttl="1h", secret_id_num_uses=1)

    async with opened(_server(openbao_address, role), keeps_token=True) as client:
        first = await looked_up(client)

        async def renewed_twice() -> bool:
            found = await as_root(openbao_address, "POST", "auth/token/lookup", {"token": first["id"]})
            return bool(found["data"].get("last_renewal_time", 0) > first["creation_time"] + 3)

        await eventually(renewed_twice)
        assert first["id"] == (await looked_up(client))["id"]


async def test_a_refused_login_does_not_end_a_token_that_is_valid(openbao_address: str) -> None:
    clock = FakeClock()
    await token_for(openbao_address, *WITHOUT_RENEWAL)
    policy = f"policy-{abs(hash(WITHOUT_RENEWAL))}"
    role = await role_of(
        openbao_address,
        "kept",
        token_policies=policy,
        token_no_default_policy=True,
        token_ttl="300s",
        secret_id_num_uses=1,
    )

    async with opened(_server(openbao_address, role), clock=clock) as client:
        first = (await looked_up(client))["id"]
        for _ in range(5):
            clock.elapsed += 201.0
            assert first == (await looked_up(client))["id"]
        with pytest.raises(OpenBaoDenied, match="denies this token the request to secret/data/x"):
            await client.request("GET", "secret/data/x")  # a denial by the policy is no reason for a login either
        assert first == (await looked_up(client))["id"]


async def test_denials_lead_to_one_login(openbao_address: str) -> None:
    """A token that may not even look itself up is denied something: one login shows that another token is no help."""
    clock = FakeClock()
    role = await _without_lookup(openbao_address, "no-lookup")

    async with faulty_proxy(openbao_address) as proxy, opened(_server(proxy.url, role), clock=clock) as client:
        for _ in range(5):
            with pytest.raises(OpenBaoDenied, match="denies this token the request to secret/data/x"):
                await client.request("GET", "secret/data/x")
        assert 2 == proxy.paths.count("/v1/auth/approle/login")
        clock.elapsed += 61.0
        with pytest.raises(OpenBaoDenied):
            await client.request("GET", "secret/data/x")
        assert 3 == proxy.paths.count("/v1/auth/approle/login")


async def test_a_denial_is_named_although_the_login_is_refused(openbao_address: str) -> None:
    role = await _without_lookup(openbao_address, "no-lookup-once", secret_id_num_uses=1)

    async with opened(_server(openbao_address, role)) as client:
        with pytest.raises(OpenBaoDenied, match=r"denies this token the request to secret/data/x.*refuses the login"):
            await client.request("GET", "secret/data/x")
        assert "data" in await client.request("POST", MINE, {"data": {"a": "b"}})


async def _without_lookup(address: str, name: str, **limits: object) -> AppRole:
    policy = f"policy-of-{name}"
    body = {"policy": f'path "{MINE}" {{ capabilities = ["create", "update"] }}'}
    await as_root(address, "PUT", f"sys/policies/acl/{policy}", body)
    return await role_of(address, name, token_policies=policy, token_no_default_policy=True, token_ttl="300s", **limits)


async def test_at_its_longest_time_a_login_follows(openbao_address: str) -> None:
    clock = FakeClock()
    role = await role_of(openbao_address, "longest", token_ttl="300s", token_max_ttl="300s")

    async with opened(_server(openbao_address, role), clock=clock) as client:
        first = await looked_up(client)

        async def is_nearer_its_end() -> bool:
            return bool((await looked_up(client))["ttl"] < first["creation_ttl"] - 1)

        await eventually(is_nearer_its_end)
        clock.elapsed += 201.0
        assert first["id"] != (await looked_up(client))["id"]


async def test_a_token_that_nears_its_longest_time_is_warned_of(openbao_address: str) -> None:
    clock = FakeClock()
    body = {"policies": ["default"], "ttl": "300s", "explicit_max_ttl": "300s"}
    made = await as_root(openbao_address, "POST", "auth/token/create", body)
    token = SecretMaterial(made["auth"]["client_token"].encode())

    async with opened(_server(openbao_address, token), clock=clock) as client:
        first = await looked_up(client)

        async def is_nearer_its_end() -> bool:
            return bool((await looked_up(client))["ttl"] < first["ttl"] - 1)

        await eventually(is_nearer_its_end)
        clock.elapsed += 201.0
        with capture_logs() as logged:
            assert (await looked_up(client))["last_renewal"] is not None
    (warning,) = (each for each in logged if each["event"] == "openbao.token_ends")
    assert "replace it" in warning["reason"]
    assert 290 <= warning["ends_in_seconds"] < 300


async def test_a_renewal_for_no_time_is_not_endless(openbao_address: str) -> None:
    """A renewal that gives 0 s is none: the token keeps its end, is warned of, and is renewed again before it."""
    clock = FakeClock()
    token = await token_for(openbao_address, ttl="300s")

    def without_time(body: bytes) -> bytes:
        answer = json.loads(body)
        answer["auth"]["lease_duration"] = 0
        return json.dumps(answer).encode()

    async with faulty_proxy(openbao_address) as proxy, opened(_server(proxy.url, token), clock=clock) as client:
        await looked_up(client)
        proxy.fault, proxy.only = AlteredAnswer(change=without_time), "/renew-self"
        clock.elapsed += 201.0
        with capture_logs() as logged:
            await looked_up(client)
        (warning,) = (each for each in logged if each["event"] == "openbao.token_ends")
        assert 90 < warning["ends_in_seconds"] <= 99
        proxy.fault = None
        clock.elapsed += 34.0
        await looked_up(client)
        assert 2 == proxy.paths.count("/v1/auth/token/renew-self")


async def test_a_replaced_file_gives_the_next_token(openbao_address: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    clock = FakeClock()

    async def written(ttl: str = "40s") -> SecretMaterial:
        made = await as_root(
            openbao_address, "POST", "auth/token/create", {"policies": ["default"], "explicit_max_ttl": ttl}
        )
        file.write_text(made["auth"]["client_token"])
        return SecretMaterial(made["auth"]["client_token"].encode())

    first = await written()
    async with opened(_from_file(openbao_address, first, file), clock=clock) as client:
        assert first.reveal().decode() == (await looked_up(client))["id"]
        second = await written()
        assert first.reveal().decode() == (await looked_up(client))["id"], "it is not read while it serves"
        clock.elapsed += 27.0
        assert second.reveal().decode() == (await looked_up(client))["id"], "it is near its end"
        third = await written()
        await revoke(openbao_address, second)
        found = await asyncio.gather(*(looked_up(client) for _ in range(5)))
    assert {third.reveal().decode()} == {each["id"] for each in found}


async def test_a_bad_token_in_the_file_does_not_displace_a_good_one(openbao_address: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    clock = FakeClock()
    first = await token_for(openbao_address, ttl="300s")
    async with opened(_from_file(openbao_address, first, file), clock=clock) as client:
        file.write_text(first.reveal().decode())
        await looked_up(client)
        file.write_text("of-another-server")
        clock.elapsed += 201.0
        with capture_logs() as logged:
            found = await looked_up(client)
        assert first.reveal().decode() == found["id"]
        assert found["last_renewal"] is not None
        (warning,) = (each for each in logged if each["event"] == "openbao.token_ends")
        assert "refuses the token that the file has now" in warning["reason"]
        await revoke(openbao_address, first)
        with pytest.raises(OpenBaoDenied):
            await looked_up(client)
        second = await token_for(openbao_address)
        file.write_text(second.reveal().decode())
        assert second.reveal().decode() == (await looked_up(client))["id"]


async def test_a_file_that_is_gone_is_named_and_read_again_later(openbao_address: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    clock = FakeClock()
    first = await token_for(openbao_address, ttl="300s")
    file.write_text(first.reveal().decode())
    async with opened(_from_file(openbao_address, first, file), clock=clock) as client:
        await looked_up(client)
        file.unlink()
        clock.elapsed += 201.0
        assert (await looked_up(client))["last_renewal"] is not None
        await revoke(openbao_address, first)
        with pytest.raises(SecretUnavailable, match="the file of the test is gone"):
            await looked_up(client)
        second = await token_for(openbao_address)
        file.write_text(second.reveal().decode())
        assert second.reveal().decode() == (await looked_up(client))["id"]


async def test_a_refused_secret_id_is_not_sent_again_until_it_is_replaced(openbao_address: str, tmp_path: Path) -> None:
    """OpenBao locks a role after five refused logins: many requests make one login, so the next secret id serves."""
    file = tmp_path / "secret-id"
    role = await role_of(openbao_address, "locked", token_ttl="300s")
    file.write_text("of-yesterday")
    async with opened(_from_file(openbao_address, role, file)) as client:
        for _ in range(8):
            with pytest.raises(OpenBaoDenied, match=r"refuses the login by AppRole.*BAO_SECRET_ID"):
                await looked_up(client)
        file.write_text(role.secret_id.reveal().decode())
        assert "auth/approle/login" == (await looked_up(client))["path"]


async def test_a_login_that_is_not_repeated_yet_says_so(openbao_address: str) -> None:
    clock = FakeClock()
    role = await role_of(openbao_address, "repaired", token_ttl="300s")
    wrong = replace(role, secret_id=SecretMaterial(b"not-yet-there"))
    async with faulty_proxy(openbao_address) as proxy, opened(_server(proxy.url, wrong), clock=clock) as client:
        for seconds, expected in (
            (0.0, r"15 minutes$"),
            (100.0, r"refused 100 s ago, and is sent again in 800 s: restart to send it now$"),
            (801.0, r"15 minutes$"),
        ):
            clock.elapsed += seconds
            with pytest.raises(OpenBaoDenied, match=expected):
                await looked_up(client)
        assert 2 == proxy.paths.count("/v1/auth/approle/login")


async def test_a_login_whose_caller_gives_up_is_not_lost(openbao_address: str) -> None:
    """The token of a login that takes longer than a call serves the next one: a secret id of one use is used once."""
    role = await role_of(openbao_address, "slow", token_ttl="300s", secret_id_num_uses=1)
    async with faulty_proxy(openbao_address) as proxy, opened(_server(proxy.url, role), seconds=0.2) as client:
        proxy.fault, proxy.only = (late := LateAnswer()), "/login"
        call = asyncio.create_task(client.request("GET", LOOKUP))
        await late.received.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(OpenBaoUnavailable):  # it waits for the same login, and not for longer than its time
            await client.request("GET", LOOKUP)
        late.released.set()

        async def served() -> dict[str, Any] | None:
            try:
                return await looked_up(client)
            except OpenBaoUnavailable:  # of 0.2 s on a busy machine
                return None

        assert await eventually(served)
        assert 1 == proxy.paths.count("/v1/auth/approle/login")


def _server(address: str, credentials: SecretMaterial | AppRole) -> OpenBaoServer:
    return OpenBaoServer(address=address, credentials=credentials)


def _from_file(address: str, credentials: SecretMaterial | AppRole, file: Path) -> OpenBaoServer:
    def read_again() -> SecretMaterial:
        try:
            return SecretMaterial(file.read_bytes())
        except OSError:
            raise SecretUnavailable("the file of the test is gone") from None

    return replace(_server(address, credentials), read_again=read_again)
