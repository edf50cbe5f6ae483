"""How a client of OpenBao keeps a token: on a real server, whose own clock is real where its time counts."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hookseal.errors import SecretUnavailable
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.openbao.client import OpenBao, OpenBaoDenied, OpenBaoUnavailable, opened
from hookseal.secrets.openbao.server import AppRole, OpenBaoServer
from tests.doubles.clock import FakeClock
from tests.doubles.faulty_proxy import AlteredAnswer, LateAnswer, faulty_proxy
from tests.doubles.openbao import as_root, token_for
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-18")
LOOKUP = "auth/token/lookup-self"
MINE = "secret/data/mine-alone"
WITHOUT_RENEWAL = (f'path "{LOOKUP}" {{ capabilities = ["read"] }}',)


async def approle(address: str, name: str, **limits: object) -> AppRole:
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


async def looked_up(client: OpenBao) -> dict[str, Any]:
    """Return what OpenBao knows of the token of the client."""
    return dict((await client.request("GET", LOOKUP))["data"])


async def revoke(address: str, token: SecretMaterial | str) -> None:
    """End a token, as its longest time or an operator does."""
    text = token if isinstance(token, str) else token.reveal().decode()
    await as_root(address, "POST", "auth/token/revoke", {"token": text})


async def test_a_secret_id_of_one_use_serves_for_as_long_as_the_role_permits(openbao_address: str) -> None:
    """With a secret id of one use the token is renewed again and again, and no second login is tried."""
    clock = FakeClock()
    role = await approle(openbao_address, "once", token_ttl="24s", token_max_ttl="1h", secret_id_num_uses=1)

    async with faulty_proxy(openbao_address) as proxy, opened(_server(proxy.url, role), clock=clock) as client:
        first = (await looked_up(client))["id"]
        for _ in range(10):
            clock.elapsed += 16.1  # two thirds of 24 s
            assert first == (await looked_up(client))["id"]
        assert 1 == proxy.paths.count("/v1/auth/approle/login")
        assert 10 == proxy.paths.count("/v1/auth/token/renew-self")


async def test_a_token_is_renewed_while_there_are_no_requests(openbao_address: str) -> None:
    """A token of three seconds outlives them without a request; a worker with cached secrets makes none for minutes."""
    role = await approle(openbao_address, "idle", token_ttl="3s", token_max_ttl="1h", secret_id_num_uses=1)

    async with opened(_server(openbao_address, role), keeps_token=True) as client:
        first = await looked_up(client)

        async def renewed_twice() -> bool:
            found = await as_root(openbao_address, "POST", "auth/token/lookup", {"token": first["id"]})
            return bool(found["data"].get("last_renewal_time", 0) > first["creation_time"] + 3)

        await eventually(renewed_twice)
        assert first["id"] == (await looked_up(client))["id"]


async def test_a_refused_login_does_not_end_a_token_that_is_valid(openbao_address: str) -> None:
    """If neither renewal nor login is possible, the token is used for as long as OpenBao accepts it."""
    clock = FakeClock()
    await token_for(openbao_address, *WITHOUT_RENEWAL)
    policy = f"policy-{abs(hash(WITHOUT_RENEWAL))}"
    role = await approle(
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
    """If a login that a denial led to is refused, the error says what was denied first, and the token is used on."""
    role = await _without_lookup(openbao_address, "no-lookup-once", secret_id_num_uses=1)

    async with opened(_server(openbao_address, role)) as client:
        with pytest.raises(OpenBaoDenied, match=r"denies this token the request to secret/data/x.*refuses the login"):
            await client.request("GET", "secret/data/x")
        assert "data" in await client.request("POST", MINE, {"data": {"a": "b"}})


async def _without_lookup(address: str, name: str, **limits: object) -> AppRole:
    policy = f"policy-of-{name}"
    body = {"policy": f'path "{MINE}" {{ capabilities = ["create", "update"] }}'}
    await as_root(address, "PUT", f"sys/policies/acl/{policy}", body)
    return await approle(address, name, token_policies=policy, token_no_default_policy=True, token_ttl="300s", **limits)


async def test_at_its_longest_time_a_login_follows(openbao_address: str) -> None:
    """A renewal that no longer gives the whole time is followed by a login, before the token ends."""
    clock = FakeClock()
    role = await approle(openbao_address, "longest", token_ttl="300s", token_max_ttl="300s")

    async with opened(_server(openbao_address, role), clock=clock) as client:
        first = await looked_up(client)

        async def is_nearer_its_end() -> bool:
            return bool((await looked_up(client))["ttl"] < first["creation_ttl"] - 1)

        await eventually(is_nearer_its_end)
        clock.elapsed += 201.0
        assert first["id"] != (await looked_up(client))["id"]


async def test_a_token_that_nears_its_longest_time_is_warned_of(openbao_address: str) -> None:
    """A given token that is renewed for less than before is used on, and the log says that it must be replaced."""
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
    """A token in a file that an agent replaces is read again when it is refused, and when it is near its end."""
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
    """A token that OpenBao refuses is not taken from the file while the one before is accepted, and the log says so."""
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
    """While the file is missing a token that serves is renewed; one that is refused gives an error with its name."""
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
    role = await approle(openbao_address, "locked", token_ttl="300s")
    file.write_text("of-yesterday")
    async with opened(_from_file(openbao_address, role, file)) as client:
        for _ in range(8):
            with pytest.raises(OpenBaoDenied, match=r"refuses the login by AppRole.*BAO_SECRET_ID"):
                await looked_up(client)
        file.write_text(role.secret_id.reveal().decode())
        assert "auth/approle/login" == (await looked_up(client))["path"]


async def test_a_login_that_is_not_repeated_yet_says_so(openbao_address: str) -> None:
    """While a refused secret id is not sent again, the error says for how long, as the role may be repaired."""
    clock = FakeClock()
    role = await approle(openbao_address, "repaired", token_ttl="300s")
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
    role = await approle(openbao_address, "slow", token_ttl="300s", secret_id_num_uses=1)
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
