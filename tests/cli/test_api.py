"""`hookseal api` serves the HTTP API until a signal, and does not start with settings that are unsafe or do not fit."""

import asyncio
import json
import os
import re
import signal
from functools import partial

import httpx
import pytest

from tests.api.alone import PORTS, serving
from tests.cli.command import DEADLINE_SECONDS, hookseal
from tests.cli.installation import Begun
from tests.cli.listeners import SOON_SECONDS, black_hole, seconds_from
from tests.doubles.logins import login
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.embedded.processes import is_open, taken_port
from tests.worker.waiting import eventually, eventually_equals

MESSAGE = {"eventType": "invoice.paid", "payload": {"id": 1}}


async def token(begun: Begun, *options: str) -> dict[str, str]:
    """Make a token for every tenant, and return the header that has it."""
    added = await begun.run("token", "add", "--name", "test", "--tenant", "*", "--json", *options)
    return {"authorization": f"Bearer {added.json['token']}"}


async def status_of(client: httpx.AsyncClient, url: str) -> int:
    """Return the status of the answer; that of a probe is another one while the machine is too busy to check."""
    return (await client.get(url)).status_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_api_is_ready_until_a_signal(number: signal.Signals, begun: Begun) -> None:
    """One line has the addresses of the API and of its probes; a signal ends it with 0 and no more output."""
    headers = await token(begun)
    async with serving(begun.settings) as (process, ready), httpx.AsyncClient() as client:
        assert {"event", "pid", "url", "health_url"} == ready.keys()
        assert ("api.ready", process.pid) == (ready["event"], ready["pid"])
        for path in ("/livez", "/readyz", "/healthz", "/startupz"):
            await eventually_equals(200, partial(status_of, client, ready["health_url"] + path))
        assert 204 == (await client.get(ready["url"] + "/api/v1/health")).status_code
        assert 401 == (await client.get(ready["url"] + "/api/v1/app/acme/msg/x")).status_code
        assert 401 == (await client.get(ready["url"] + "/portal/")).status_code
        assert 404 == (await client.get(ready["url"] + "/portals")).status_code
        sent = await client.post(ready["url"] + "/api/v1/app/acme/msg", json=MESSAGE, headers=headers)
        assert 202 == sent.status_code
        figures = (await client.get(ready["health_url"] + "/metrics")).text
        assert 'hookseal_api_requests_total{call="health.get",status="2xx"} 1.0' in figures
        assert "hookseal_api_published_total 1.0" in figures
        assert "hookseal_api_publish_seconds_count 1.0" in figures
        assert 'hookseal_api_requests_total{call="message.get",status="4xx"} 1.0' in figures
        assert 'hookseal_api_requests_total{call="page",status="4xx"} 1.0' in figures
        assert "hookseal_api_request_seconds_count 5.0" in figures
        assert "process_resident_memory_bytes" in figures
        process.send_signal(number)
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert (0, b"") == (process.returncode, out)
    assert ["api.ready", "api.draining", "api.stopped"] == events
    assert not is_open(int(ready["url"].rpartition(":")[2]))
    assert not is_open(int(ready["health_url"].rpartition(":")[2]))


@pytest.mark.req("OPS-13")
async def test_it_starts_on_a_newer_schema_that_admits_it(begun: Begun) -> None:
    """So do its commands; on one that does not, both end with 78 and say what to do."""
    newer = "UPDATE hookseal.alembic_version SET version_num = '9998', runs_from = '{}'"
    await begun.stored.pool.execute(newer.format("0001"))
    headers = await token(begun)
    async with serving(begun.settings) as (_, ready), httpx.AsyncClient(headers=headers) as client:
        await eventually_equals(200, partial(status_of, client, ready["health_url"] + "/startupz"))
        assert 200 == (await client.get(ready["url"] + "/api/v1/app")).status_code

    await begun.stored.pool.execute(newer.format("9997"))
    for command in ("api", "tenant"):
        ended = await hookseal(command, *(["list"] if command == "tenant" else []), **begun.settings, **PORTS)
        assert 78 == ended.code
        assert "the schema needs one that knows 9997" in ended.err
        assert "install a newer hookseal" in ended.err


async def test_several_processes_are_one_server(begun: Begun) -> None:
    """They share a port and count together; a killed one is replaced; a signal lets all answer what was begun."""
    headers = await token(begun)
    body = json.dumps(MESSAGE).encode()
    async with (
        serving(begun.settings, "--processes", "2") as (process, ready),
        httpx.AsyncClient() as client,
    ):
        assert {"event", "pid", "url", "health_url", "processes"} == ready.keys()
        assert ("api.ready", [1, 2]) == (ready["event"], [each["process"] for each in ready["processes"]])

        async def is_ready() -> bool:
            return 200 == (await client.get(ready["health_url"] + "/readyz")).status_code

        async def answered() -> None:
            async with httpx.AsyncClient(base_url=ready["url"]) as own:  # each has a connection of its own
                assert 204 == (await own.get("/api/v1/health")).status_code

        for _ in range(20):
            await answered()
        for path in ("/livez", "/readyz", "/healthz", "/startupz"):
            await eventually_equals(200, partial(status_of, client, ready["health_url"] + path))
        figures = (await client.get(ready["health_url"] + "/metrics")).text
        assert 'hookseal_api_requests_total{call="health.get",status="2xx"} 20.0' in figures
        assert "hookseal_api_request_seconds_count 20.0" in figures
        os.kill(ready["processes"][0]["pid"], signal.SIGKILL)

        async def replaced() -> bool:
            text = (await client.get(ready["health_url"] + "/metrics")).text
            return re.search(r'restarts_total\{[^}]*"killed"[^}]*\} 1\.0', text) is not None and await is_ready()

        await eventually(replaced)
        await answered()
        port = int(ready["url"].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /api/v1/app/acme/msg HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: %b\r\ncontent-length: %d\r\n\r\n" % (headers["authorization"].encode(), len(body))
        )
        writer.write(body[:-1])
        await writer.drain()
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: not is_open(port))
        writer.write(body[-1:])
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await reader.read()).startswith(b"HTTP/1.1 202 ")
            out, _ = await process.communicate()
        writer.close()

    assert (0, b"") == (process.returncode, out)
    assert not is_open(int(ready["health_url"].rpartition(":")[2]))


async def test_a_start_of_several_that_fails_says_why(begun: Begun) -> None:
    """With the code and the message of a single process."""
    options = ("--processes", "2")
    taken, port = taken_port()
    with taken:
        busy = await begun.run("api", *options, **PORTS | {"HOOKSEAL_API_PORT": str(port)})
    wrong = await begun.run("api", *options, SECRETS_MASTER_KEY=MASTER_KEY_TEXT.swapcase(), **PORTS)
    many = await begun.run("api", "--processes", "1000", **PORTS)

    assert [69, 78, 2] == [busy.code, wrong.code, many.code]
    assert "HOOKSEAL_API_PORT" in busy.err


async def test_a_client_that_goes_away_is_no_failure_of_the_server(begun: Begun) -> None:
    headers = await token(begun)

    async def token_used() -> bool:
        return bool(await begun.stored.pool.fetchval("SELECT last_used_on IS NOT NULL FROM hookseal.api_tokens"))

    async with serving(begun.settings) as (_, ready), httpx.AsyncClient() as client:
        _, writer = await asyncio.open_connection("127.0.0.1", int(ready["url"].rpartition(":")[2]))
        writer.write(
            b"POST /api/v1/app/acme/msg HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: %b\r\ncontent-length: 100\r\n\r\n{" % headers["authorization"].encode()
        )
        await writer.drain()
        await eventually(token_used)  # so the call has begun
        writer.close()

        async def counted() -> list[str]:
            figures = (await client.get(ready["health_url"] + "/metrics")).text
            return re.findall(r'hookseal_api_requests_total\{call="message.create",status="(...)"\} 1\.0', figures)

        assert ["4xx"] == await eventually(counted)


@pytest.mark.req("API-03")
async def test_a_token_is_refused_from_its_revocation_on(begun: Begun) -> None:
    headers = await token(begun)
    async with serving(begun.settings) as (_, ready), httpx.AsyncClient(base_url=ready["url"], headers=headers) as api:
        first = await api.post("/api/v1/app/acme/msg", json=MESSAGE)
        assert 202 == first.status_code
        assert 0 == (await begun.run("token", "revoke", "--name", "test")).code
        assert 401 == (await api.post("/api/v1/app/acme/msg", json=MESSAGE)).status_code


async def test_a_request_in_work_is_answered_before_the_end(begun: Begun) -> None:
    """A request whose body is on its way when the signal comes is answered; a new connection is refused."""
    headers = await token(begun)
    body = json.dumps(MESSAGE).encode()
    async with serving(begun.settings) as (process, ready):
        port = int(ready["url"].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /api/v1/app/acme/msg HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: %b\r\ncontent-length: %d\r\n\r\n" % (headers["authorization"].encode(), len(body))
        )
        writer.write(body[:-1])
        await writer.drain()
        assert process.stderr is not None
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while b"api.draining" not in await process.stderr.readline():
                pass
            writer.write(body[-1:])
            answer = await reader.read()
            assert 0 == await process.wait()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 202 ")


@pytest.mark.req("API-09", part="without-keys")
async def test_without_a_master_key_it_reads_and_publishes(begun: Begun) -> None:
    headers = await token(begun)
    settings = {name: value for name, value in begun.settings.items() if not name.startswith("SECRETS_")}
    async with serving(settings) as (_, ready), httpx.AsyncClient(base_url=ready["url"], headers=headers) as api:
        published = await api.post("/api/v1/app/acme/msg", json=MESSAGE)
        event_id = published.json()["id"]
        read = await api.get(f"/api/v1/app/acme/msg/{event_id}", params={"with_content": "false"})
        refused = await api.get(f"/api/v1/app/acme/msg/{event_id}")
        ready_answer = await api.get(ready["health_url"] + "/readyz")

    assert [202, 200, 200] == [each.status_code for each in (published, read, ready_answer)]
    assert (403, "no_master_key") == (refused.status_code, refused.json()["code"])


@pytest.mark.req("API-09", part="role")
async def test_its_login_needs_a_grant_to_publish(begun: Begun) -> None:
    """With the role that is made for it, it does all but publish; what is missing is in the log, not in the answer."""
    headers = await token(begun, "--scope", "manage", "--scope", "publish")
    pool, url = begun.stored.pool, begun.settings["DATABASE_URL"]
    async with login(pool, url, "hookseal_api") as (role, of_role):
        settings = begun.settings | {"DATABASE_URL": of_role}
        async with serving(settings) as (process, ready), httpx.AsyncClient(headers=headers) as api:
            path = f"{ready['url']}/api/v1/app/acme/msg"
            refused = await api.post(path, json=MESSAGE)
            assert 0 == (await begun.run("producer", "grant", "--role", role, "--tenant", "*")).code
            published = await api.post(path, json=MESSAGE)
            process.send_signal(signal.SIGTERM)
            _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)

    answer = {"code": "refused", "detail": "a rule of this server forbids it"}
    assert (403, answer, 202) == (refused.status_code, refused.json(), published.status_code)
    [logged] = [line for line in map(json.loads, err.splitlines()) if line["event"] == "api.refused"]
    assert "hookseal producer grant --role" in logged["reason"]


@pytest.mark.parametrize("role", ["hookseal_worker", "hookseal_operator"])
async def test_it_starts_with_the_roles_of_others(role: str, begun: Begun) -> None:
    headers = await token(begun)
    pool, url = begun.stored.pool, begun.settings["DATABASE_URL"]
    async with (
        login(pool, url, role) as (_, of_role),
        serving(begun.settings | {"DATABASE_URL": of_role}) as (_, ready),
        httpx.AsyncClient() as api,
    ):
        response = await api.post(f"{ready['url']}/api/v1/app/acme/msg", json=MESSAGE, headers=headers)

    assert 403 == response.status_code


@pytest.mark.req("UI-02", part="link")
async def test_it_serves_the_pages_to_the_visitors_of_a_link(begun: Begun) -> None:
    """At the address of the settings, in their look: the command prints the link, and the page has a button."""
    look = {
        "HOOKSEAL_PORTAL_URL": "https://hooks.example/webhooks",
        "HOOKSEAL_PORTAL_NAME": "Acme hooks",
        "HOOKSEAL_PORTAL_ACCENT": "#7a1fbf",
        "HOOKSEAL_PORTAL_LOGO": "https://cdn.example/logo.svg",
        "HOOKSEAL_PORTAL_FRAMES": "https://product.example",
    }
    linked = await begun.run("portal", "link", "--tenant", "acme", "--json", **look)
    code = linked.json["url"].removeprefix("https://hooks.example/webhooks/login?code=")
    async with serving(begun.settings | look) as (_, ready), httpx.AsyncClient(base_url=ready["url"]) as client:
        page = await client.get("/portal/login", params={"code": code}, headers={"x-forwarded-host": "evil.example"})
        moved = await client.get("/portal")

    assert (200, 307, "https://hooks.example/webhooks/") == (
        *(page.status_code, moved.status_code),
        "https://hooks.example" + moved.headers["location"],
    )
    for said in ("Acme hooks", 'action="/webhooks/login"', "/webhooks/look/7a1fbf.css", "https://cdn.example/logo.svg"):
        assert said in page.text, said
    assert "frame-ancestors https://product.example" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NAME", ""),
        ("ACCENT", "red"),
        ("LOGO", "http://a.example/x"),
        ("LANGUAGE", "klingon"),
        ("TIME_ZONE", "Mars/Base"),
        ("FRAMES", "product"),
    ],
)
async def test_a_look_that_is_none_is_refused_at_the_start(name: str, value: str, begun: Begun) -> None:
    ended = await begun.run("api", **PORTS | {f"HOOKSEAL_PORTAL_{name}": value})

    assert (78, "") == (ended.code, ended.out)
    assert f"HOOKSEAL_PORTAL_{name}" in ended.err


async def test_wrong_settings_are_refused_at_once() -> None:
    settings = {
        "HOOKSEAL_API_PORT": "hunter2",
        "HOOKSEAL_API_SCHEME": "svix1",
        "HOOKSEAL_API_ORIGINS": "http://pages.example",
        "HOOKSEAL_API_RATE": "0",
        "HOOKSEAL_PORTAL_URL": "http://pages.example/portal",
        "HOOKSEAL_PORTAL_FRAMES": "http://pages.example",
        "HOOKSEAL_ALLOW_HTTP": "true",
        "SECRETS_PROVIDER": "dev",
    }
    ended = await hookseal("api", **settings)

    assert (78, "") == (ended.code, ended.out)
    assert ["DATABASE_URL", *sorted(settings)] == sorted(
        line.removeprefix("hookseal: ").split()[0] for line in ended.err.splitlines()
    )
    assert "hunter2" not in ended.err


async def test_a_key_that_does_not_fit_is_refused_at_the_start(begun: Begun) -> None:
    ended = await begun.run("api", SECRETS_MASTER_KEY=MASTER_KEY_TEXT.swapcase(), **PORTS)

    assert (78, "") == (ended.code, ended.out)


async def test_a_busy_port_names_the_setting(begun: Begun) -> None:
    taken, port = taken_port()
    with taken:
        ended = await begun.run("api", **PORTS | {"HOOKSEAL_API_PORT": str(port)})
        probes = await begun.run("api", **PORTS | {"HOOKSEAL_HEALTH_PORT": str(port)})
    for each, name in ((ended, "HOOKSEAL_API_PORT"), (probes, "HOOKSEAL_HEALTH_PORT")):
        assert (69, "") == (each.code, each.out)
        assert f"127.0.0.1:{port}" in each.err
        assert name in each.err


async def test_without_postgresql_it_exits_within_seconds() -> None:
    async with black_hole() as (port, called):
        settings = PORTS | {"DATABASE_URL": f"postgresql://user:hunter2@127.0.0.1:{port}/db"}
        ended, seconds = await seconds_from(called, hookseal("api", "--json", **settings))

    assert (69, "unavailable", True) == (ended.code, ended.json["error"]["code"], seconds < SOON_SECONDS)
    assert "hunter2" not in ended.out + ended.err
