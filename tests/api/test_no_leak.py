"""`hookseal api` that logs all it can: every call, done and failed in every way, shows a secret only where it must.

The law is one table, `SHOWN`. What is found must be exactly that: a leak fails, and so does a search that finds
nothing.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import msgspec
import pytest

from hookseal import Admin
from hookseal.api.call import Call
from hookseal.api.calls import CALLS
from hookseal.api.connections import MOST_HEAD_BYTES
from hookseal.embedded.server import Server
from hookseal.postgres.pool import Pool
from tests.api.alone import serving
from tests.api.owned import owned
from tests.api.test_isolation import BODIES
from tests.cli.listeners import closed_port
from tests.doubles.openbao import ROOT_TOKEN
from tests.doubles.stored import Installation, begin
from tests.worker import leak_places
from tests.worker.canary import Canary, search
from tests.worker.environment import environment
from tests.worker.leaking import HMAC, NEWER, TOKEN, all_canaries
from tests.worker.verbose_process import ANSWERING, IS_API, verbose_settings

MARK: Final = "canary-4f1d"
KEY: Final = f"auto_{MARK}-of-what-identifies-a-request"
PAYLOAD: Final = f"{MARK} of a payload, price 1.10"
MALFORMED: Final = f"{MARK}-of-what-is-malformed"
WRONG_TOKEN: Final = f"whst_{MARK}-of-a-token-that-is-wrong"
HEADERS: Final = {"X-Own": f"Bearer {TOKEN.decode()}"}
# What a request has for the members of these names, and what is wrong in them.
SECRET_MEMBERS: Final[Mapping[str, Any]] = {
    "payload": {"note": PAYLOAD},
    "headers": HEADERS,
    "secret": HMAC.reveal().decode(),
    "key": NEWER.reveal().decode(),
}
WRONG: Final[Mapping[str, Any]] = {
    "payload": [MALFORMED],
    "headers": {"X-Own": f"{MALFORMED}\n"},
    "secret": f"whsec_{MALFORMED}",
    "key": f"whsec_{MALFORMED}",
}
# Which canary is in which place: in the answers of these calls, and in this table. There is no other.
SHOWN: Final = {
    ("answer of endpoint.get_secret", "secret"),
    ("answer of endpoint.rotate_secret", "newer secret"),
    ("answer of operational_webhook.endpoint.get_secret", "secret"),
    ("answer of operational_webhook.endpoint.get_secret", "newer secret"),
    ("answer of operational_webhook.endpoint.rotate_secret", "newer secret"),
    ("answer of hookseal.token.create", "made token"),
    ("answer of message.create", "payload"),
    ("answer of endpoint.send_example", "payload"),
    ("answer of message.list", "payload"),
    ("answer of message.get", "payload"),
    ("answer of message_attempt.list_attempted_messages", "payload"),
    ("table events", "payload"),
}
LOCKED: Final = "endpoints, events, deliveries, attempts, tenants, event_types, replays, audit_log, secret_records"
SESSIONS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name IN ('hookseal-admin', 'hookseal-publisher')
"""


Request = dict[str, Any]  # the arguments of a request


def body_of(call: Call) -> dict[str, Any]:
    """Return a body with which the call would be done, and a canary in each member that may have one."""
    members = {each.encode_name for each in msgspec.structs.fields(call.body)} if call.body is not None else set[str]()
    secret = {name: value for name, value in SECRET_MEMBERS.items() if name in members}
    given = BODIES.get(call.name, {})
    own = {"url": f"https://{call.name.replace('_', '-')}.example"} if "url" in given else {}
    return given | own | secret


def request_of(call: Call, names: Mapping[str, str], token: str) -> Request:
    """Return a request with which the call would be done."""
    url = call.path
    if call.tenant:
        names = {**names, "endpoint_id": names["own_endpoint_id"]}
    for name, value in names.items():
        url = url.replace("{" + name + "}", value)
    headers = {"authorization": f"Bearer {token}", "idempotency-key": f"{KEY}-{call.name}"}
    request = {"method": call.method, "url": url, "headers": headers}
    return request if call.body is None else request | {"json": body_of(call)}


def with_header(name: str, value: str) -> Callable[[Request], Request]:
    """Return what sets this header."""
    return lambda request: request | {"headers": request["headers"] | {name: value}}


def with_member(name: str, value: Callable[[Any], Any]) -> Callable[[Request], Request]:
    """Return what sets this member of the body; the function gets its value."""
    return lambda request: request | {"json": request["json"] | {name: value(request["json"].get(name))}}


def with_text(change: Callable[[str], str | bytes], kind: str = "application/json") -> Callable[[Request], Request]:
    """Return what sends another text as the body."""

    def changed(request: Request) -> Request:
        others = {name: value for name, value in request.items() if name != "json"}
        return with_header("content-type", kind)(others) | {"content": change(json.dumps(request["json"]))}

    return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How calls are made: what is changed in each request, and the statuses that may answer it.

    `needs` is a member of the body without which a call cannot be made in this way; "" is any body.
    """

    change: Callable[[Request], Request] = lambda request: request
    statuses: Sequence[int]
    needs: str | None = None

    def is_of(self, call: Call) -> bool:
        """Return whether the call can be made in this way."""
        return self.needs is None or (call.body is not None and self.needs in {"", *body_of(call)})


# Only the token of a portal can log out, and only an endpoint that signs with ed25519 has public keys.
REFUSED_HERE: Final = {"authentication.logout", "hookseal.public_keys"}
SUCCESS: Final = (200, 201, 202, 204)
DONE: Final = Way(statuses=SUCCESS)
AGAIN: Final = Way(statuses=(*SUCCESS, 404, 409))
REFUSED: Final = Way(statuses=(*SUCCESS, 403, 404, 409, 422, 503))
AWAY: Final = Way(statuses=(*REFUSED.statuses, 401))
# In every way that a client can cause, and a fault of ours; none of these calls is done.
FAILED: Final = {
    "a wrong token": Way(change=with_header("authorization", f"Bearer {WRONG_TOKEN}"), statuses=(204, 401)),
    "a wrong method": Way(change=lambda request: request | {"method": "TRACE"}, statuses=(405,)),
    "a wrong key": Way(change=with_header("idempotency-key", KEY * 9), statuses=(422,)),
    "an unknown parameter": Way(change=lambda request: request | {"params": {"x": MALFORMED}}, statuses=(422,)),
    "no JSON": Way(change=with_text(lambda text: text[:-1]), statuses=(422,), needs=""),
    "no UTF-8": Way(change=with_text(lambda text: text.encode("utf-16")), statuses=(422,), needs=""),
    "a member twice": Way(change=with_text(lambda text: f'{{"x": {text}, "x": 1}}'), statuses=(422,), needs=""),
    "an unknown member": Way(change=with_member("nonsense", lambda _: MALFORMED), statuses=(422,), needs=""),
    "no content type": Way(change=with_text(str, "text/plain"), statuses=(415,), needs=""),
    "a long body": Way(change=with_text(lambda text: text + " " * 2_200_000), statuses=(413,), needs=""),
    "a fault of ours": Way(change=with_header("user-agent", ANSWERING), statuses=(500,)),
} | {
    f"{how} {name}": Way(change=with_member(name, change), statuses=(422,), needs=name)
    for name, wrong in WRONG.items()
    for how, change in (("a wrong", lambda _, wrong=wrong: wrong), ("a list of", lambda value: [value]))
}


@dataclass(slots=True, kw_only=True)
class Asking:
    """Makes calls of a process, and keeps every answer."""

    client: httpx.AsyncClient
    names: Mapping[str, str]
    token: str
    answers: dict[str, bytes] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    made_tokens: list[bytes] = field(default_factory=list)

    async def all(self, way: Way, how: str, calls: Sequence[Call]) -> None:
        """Make these calls in this way, one after another."""
        for call in filter(way.is_of, calls):
            await self.one(call, way, how)

    async def one(self, call: Call, way: Way, how: str) -> None:
        """Make one call in this way."""
        response = await self.client.request(**way.change(request_of(call, self.names, self.token)))
        assert response.status_code in way.statuses, (call.name, how, response.status_code, response.text)
        self.statuses[response.status_code] += 1
        self.keep(f"answer of {call.name}", repr(response.headers.raw).encode() + response.content)
        if call.name == "hookseal.token.create" and response.is_success and response.json()["token"]:
            self.made_tokens.append(response.json()["token"].encode())

    def keep(self, place: str, content: bytes) -> None:
        """Keep what was found in a place, behind what was found there before."""
        self.answers[place] = self.answers.get(place, b"") + content


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An installation with servers of its own, and a token for everything."""

    installation: Installation
    admin: Admin
    postgres: Server
    valkey: Server
    folder: Path
    token: str

    @property
    def pool(self) -> Pool:
        return self.installation.pool

    @asynccontextmanager
    async def asking(self, tenant: str, found: dict[str, bytes], **changes: str) -> AsyncIterator[Asking]:
        """Yield what asks a process with these settings; afterwards all that it wrote is in `found`."""
        names = await owned(
            self.installation,
            self.admin,
            tenant,
            payload=json.dumps(SECRET_MEMBERS["payload"]).encode(),
            secret=SECRET_MEMBERS["secret"],
            headers=HEADERS,
        )
        own = await self.admin.endpoints.add(
            tenant_id="_operator",
            event_types=["*"],
            url=f"https://{tenant}.operator.example",
            secret=SECRET_MEMBERS["secret"],
            actor="test",
        )
        names["own_endpoint_id"] = own.endpoint_id
        loud = verbose_settings(self.folder / "loud", worker=False) | {IS_API: "1"}
        settings = environment(self.postgres.url, self.valkey.url, **loud, **changes)
        log_file = self.folder / f"{tenant}.log"
        with log_file.open("wb") as log:
            async with serving(settings, log=log) as (_, ready):
                async with httpx.AsyncClient(base_url=ready["url"], timeout=60) as client:
                    asking = Asking(client=client, names=names, token=self.token)
                    yield asking
                for name, content in (await leak_places.pages(ready["health_url"])).items():
                    found[f"{name} {tenant}"] = content
        for name, content in asking.answers.items():
            found[name] = found.get(name, b"") + content
        found[f"log {tenant}"] = log_file.read_bytes()
        found[f"ready {tenant}"] = repr(ready).encode()


async def while_postgresql_is_away(site: Site, asking: Asking) -> None:
    """Make every call while its tables are locked and its sessions are ended, and some while PostgreSQL is frozen."""

    async def through(cause: Callable[[], Awaitable[object]], calls: Sequence[Call]) -> None:
        running = [asyncio.create_task(asking.one(call, AWAY, "without PostgreSQL")) for call in calls]
        while not all(task.done() for task in running):
            await cause()
            await asyncio.wait(running, timeout=0.1)
        await asyncio.gather(*running)

    before = asking.statuses[503]
    async with site.pool.acquire() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {', '.join(f'hookseal.{name}' for name in LOCKED.split(', '))}")
        await through(lambda: connection.execute(SESSIONS), CALLS)
    assert asking.statuses[503] > before + len(CALLS) // 2, asking.statuses

    async def nothing() -> None:
        """Wait for the time-out."""

    site.postgres.freeze()
    try:
        before = asking.statuses[503]
        await through(nothing, [call for call in CALLS if call.body is not None][:8])
        assert before + 8 == asking.statuses[503], asking.statuses
    finally:
        site.postgres.thaw()


async def broken_requests(asking: Asking) -> None:
    """Send what is no HTTP, and a head that is too long, with a token."""
    url = asking.client.base_url
    for name, head in (
        ("no HTTP", f"GET /api/v1/app HTTP/1.1\r\nauthorization Bearer {asking.token}\r\n\r\n"),
        ("a long head", f"GET / HTTP/1.1\r\nauthorization: Bearer {asking.token * 1_600}"[: MOST_HEAD_BYTES + 1]),
    ):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 4"), answer
        asking.keep(f"answer to {name}", answer)


def places(found: list[str]) -> set[tuple[str, str]]:
    """Return in which place which canary was found, without the form."""
    split = (line.partition(": ") for line in found)
    return {
        (f"table {place.removesuffix(' as text').removesuffix(' as binary')}" if " as " in place else place, name)
        for place, _, what in split
        for name in [what.rpartition(" as ")[0]]
    }


@pytest.mark.timeout(300)
@pytest.mark.req("API-11")
async def test_secrets_are_only_where_they_must_be(own_postgres: Server, own_valkey: Server, tmp_path: Path) -> None:
    """Through every call and failure: answers, logs, metrics, tables, Redis, and the log of PostgreSQL."""
    found: dict[str, bytes] = {}
    async with (
        asyncpg.create_pool(own_postgres.url, min_size=1, max_size=4) as pool,
        leak_places.monitored(own_valkey) as heard,
    ):
        installation = await begin(pool)
        settings = environment(own_postgres.url, own_valkey.url)
        async with Admin.connect(environ=settings) as admin:
            made = await admin.tokens.add(
                name="canary",
                tenant_id="*",
                scopes=["read", "publish", "manage", "operate", "reveal"],
                actor="test",
            )
            site = Site(
                installation=installation,
                admin=admin,
                postgres=own_postgres,
                valkey=own_valkey,
                folder=tmp_path,
                token=made.token.reveal().decode(),
            )
            async with site.asking("acme", found) as asking:
                calls = [call for call in CALLS if call.method != "DELETE" and call.name not in REFUSED_HERE]
                deletions = [call for call in CALLS if call.method == "DELETE"]
                deletions.sort(key=lambda call: call.name == "application.delete")  # after the endpoint's
                await asking.all(DONE, "done", calls)
                await asking.all(AGAIN, "again", calls)
                for how, way in FAILED.items():
                    await asking.all(way, how, CALLS)
                await broken_requests(asking)
                await while_postgresql_is_away(site, asking)
                await asking.all(AGAIN, "done", deletions)
                [made_token] = asking.made_tokens
            async with site.asking("initech", found, SECRETS_PROVIDER="", SECRETS_MASTER_KEY="") as asking:
                await asking.all(REFUSED, "without a master key", [*calls, *deletions])
                assert asking.statuses[403] > len(CALLS) // 3, asking.statuses
            away = {"SECRETS_PROVIDER": "openbao", "BAO_ADDR": f"http://127.0.0.1:{closed_port()}"}
            async with site.asking("umbrella", found, **away, BAO_TOKEN=ROOT_TOKEN) as asking:
                await asking.all(REFUSED, "without its provider", [*calls, *deletions])
                assert asking.statuses[503], asking.statuses
        known = await all_canaries(installation, own_postgres.url, own_valkey.url)
        found |= await leak_places.tables(pool)
        found |= {f"redis {name}": value for name, value in (await leak_places.keys(own_valkey.url)).items()}
    found["monitor"] = bytes(heard)
    found["log of PostgreSQL"] = own_postgres.log.read_bytes()
    canaries = (
        *known,
        Canary("token", (site.token.encode(),)),
        Canary("made token", (made_token,)),
        Canary("wrong token", (WRONG_TOKEN.encode(),)),
        Canary("payload", (PAYLOAD.encode(),)),
        Canary("key", (KEY.encode(),)),
        Canary("malformed", (MALFORMED.encode(),)),
    )

    assert SHOWN == places(search(found, canaries))
    # The run really logged, stored and sent enough that a leak would be found.
    assert all(found[name] for name in ("log acme", "log of PostgreSQL", "/metrics acme", "monitor"))
    assert found["log acme"].count(b"a fault of ours") >= len(CALLS)
    assert b"Traceback" in found["log acme"]
    assert b'"event":"api.refused"' in found["log umbrella"]
    assert b"terminating connection" in found["log of PostgreSQL"]
