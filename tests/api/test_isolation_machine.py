"""Two tenants and an operator make any calls in any order: each tenant is answered as if the other did not exist.

The model is the product itself. In one installation both tenants live; beside it each has one to itself, in which only
its own steps are made. Each answer to a tenant must be the same in both, but for ids, times and secrets.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from hookseal import Admin, Publisher
from hookseal.api import ALL, app
from hookseal.api.call import Call
from hookseal.api.calls import CALLS
from hookseal.postgres.pool import FairPool, Pool
from tests import rows
from tests.api.test_contract import FORMS
from tests.api.test_isolation import BODIES
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.servers import Servers, WithoutReset, database

T = TypeVar("T")
# Receivers that refuse connections: a ping of a host name would wait for a name server, now longer and now shorter.
RECEIVERS: Final = "https://127.0.0.1:1"
# A long run: ISOLATION_EXAMPLES=500, with other examples each time.
EXAMPLES = int(os.environ.get("ISOLATION_EXAMPLES", "0"))
OPERATOR: Final = "operator"
# An application that an operator creates is a third tenant; tokens belong to the installation, of which a status is.
TRIED: Final = [
    call
    for call in CALLS
    if call.scopes
    and call.name not in {"application.create", "hookseal.status"}
    and not call.name.startswith("hookseal.token.")
]
# What a tenant has of each kind, in the order in which it was made, which is the same in both installations.
_DELIVERIES: Final = """
hookseal.deliveries AS d JOIN hookseal.events AS e ON (e.tenant_id, e.id) = (d.tenant_id, d.event_id)
"""
_ORDER: Final = "e.occurred_at, e.id, d.endpoint_id, d.id"
OWNED: Final = {
    "endpoint_id": "SELECT id::text FROM hookseal.endpoints WHERE tenant_id = $1 ORDER BY id",
    "msg_id": "SELECT id FROM hookseal.events WHERE tenant_id = $1 ORDER BY occurred_at, id",
    "task_id": "SELECT concat(tenant_id, '.', id) FROM hookseal.replays WHERE tenant_id = $1 ORDER BY id",
    "delivery_id": f"SELECT d.id::text FROM {_DELIVERIES} WHERE d.tenant_id = $1 ORDER BY {_ORDER}",  # noqa: S608 -- ours
    "attempt_id": f"""
        SELECT concat(a.delivery_id, '.', a.number)
          FROM {_DELIVERIES} JOIN hookseal.attempts AS a ON (a.tenant_id, a.delivery_id) = (d.tenant_id, d.id)
         WHERE d.tenant_id = $1 ORDER BY {_ORDER}, a.number
    """,  # noqa: S608 -- ours
}
PENDING: Final = f"""
SELECT d.id::text, d.attempts FROM {_DELIVERIES} WHERE d.tenant_id = $1 AND d.state = 'pending' ORDER BY {_ORDER}
"""  # noqa: S608 -- ours
# Deliveries of one message to several endpoints are made in one statement, in no order.
WITHOUT_ORDER: Final = {"message_attempt.list_attempted_destinations"}
_VARYING: Final = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+]00(?::00)?)"), "TIME"),
    (re.compile(r"(?:whsec|whst)_[A-Za-z0-9+/=_-]+"), "SECRET"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "RANDOM"),  # the id of a rotation without a key
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a part of the path, or an iterator, names: the uid, or the object of that number, of one of the tenants."""

    of_the_other: bool
    number: int
    uid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call of somebody, with what it names."""

    call: Call
    who: str
    tenant: str
    named: Named
    iterator: Named | None
    key: str | None
    members: Mapping[str, Any]

    @property
    def is_of_a_tenant(self) -> bool:
        """Whether a tenant asks."""
        return self.who != OPERATOR

    def body(self) -> dict[str, Any] | None:
        """Return the body; the text in it says whose it is."""
        if self.call.body is None:
            return None
        members = {each.encode_name for each in msgspec.structs.fields(self.call.body)}
        whose = self.who if self.is_of_a_tenant or "{app_id}" not in self.call.path else self.tenant
        given = {"description": whose, "payload": {"of": whose}, "name": whose, **self.members}
        usual = BODIES[self.call.name]
        if "url" in usual:
            usual = usual | {"url": f"{RECEIVERS}/new"}
        return usual | {name: value for name, value in given.items() if name in members}


class Place:
    """An installation of its own, with the API and the tokens of its tenants."""

    def __init__(self, pool: Pool, admin: Admin, client: httpx.AsyncClient) -> None:
        self.pool = pool
        self._admin = admin
        self._client = client
        self._tokens: dict[str, str] = {}

    async def begin(self, who: str, tenant: str) -> None:
        """Make a token."""
        made = await self._admin.tokens.add(name=who, tenant_id=tenant, scopes=sorted(ALL), actor="test")
        self._tokens[who] = made.token.reveal().decode()

    async def owned(self, kind: str, tenant: str, number: int) -> str | None:
        """Return the id of the object of that kind and number; None if the tenant has not so many."""
        found = [row[0] for row in await self.pool.fetch(OWNED[kind], tenant)]
        return found[number] if number < len(found) else None

    async def deliver(self, tenant: str, state: str) -> None:
        """End every pending delivery of the tenant, after an attempt."""
        for delivery, attempts in await self.pool.fetch(PENDING, tenant):
            await rows.attempt(self.pool, delivery, attempts + 1, tenant=tenant, snippet=f"answer to {tenant}")
            await rows.set_state(self.pool, state, delivery, attempts=attempts + 1)

    async def answered(self, asked: Asked, path: str, query: Mapping[str, str]) -> tuple[int, str]:
        """Make the call, and return its answer."""
        headers = {"authorization": f"Bearer {self._tokens[asked.who]}"}
        if asked.key is not None:
            # The keys of an operator are the same ones for both tenants, which each would have alone.
            headers["idempotency-key"] = asked.key if asked.is_of_a_tenant else f"{asked.key}-{asked.tenant}"
        response = await self._client.request(asked.call.method, path, params=query, json=asked.body(), headers=headers)
        return response.status_code, response.text


class World:
    """The installation of both tenants, and the two in which each is alone, for synchronous code."""

    def __init__(self, servers: Servers) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._servers = servers
        self._stack = AsyncExitStack()
        self._examples = 0

    def __enter__(self) -> Self:
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stack.aclose())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def tenants(self) -> tuple[str, str]:
        """Return two new tenants, each with a token where it lives."""
        self._examples += 1
        acme, globex = (f"{name}-{self._examples}" for name in ("acme", "globex"))
        for tenant, place in ((acme, self.both), (globex, self.both), (acme, self.alone[0]), (globex, self.alone[1])):
            await place.begin(tenant, tenant)
        return acme, globex

    async def _open(self) -> None:
        made = [
            await self._stack.enter_async_context(_place(self._servers, f"{self._servers.prefix}isolated_{number}"))
            for number in range(3)
        ]
        self.both, *self.alone = made
        for place in made:
            await place.begin(OPERATOR, "*")


@asynccontextmanager
async def _place(servers: Servers, name: str) -> AsyncIterator[Place]:
    name = f"{name}_{servers.process}"
    async with database(servers, name, template=servers.begun) as url:
        environ = {
            "HOOKSEAL_ENV": "test",
            "HOOKSEAL_EGRESS_ALLOW": "127.0.0.1/32",
            "SECRETS_PROVIDER": "db",
            "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
        }
        async with (
            FairPool(url, max_size=2, connection_class=WithoutReset) as pool,
            Admin.connect(url, environ=environ) as admin,
            Publisher.connect(url, "") as publisher,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app(admin, publisher)), base_url="http://api.example"
            ) as client,
        ):
            yield Place(pool, admin, client)


NAMED: Final = st.builds(
    Named,
    of_the_other=st.sampled_from([False, False, False, True]),
    number=st.integers(0, 2),
    uid=st.sampled_from([None, None, "main", "second"]),
)
# The values of members: both tenants use the same ones, so that they would meet.
MEMBERS: Final = st.fixed_dictionaries(
    {
        "url": st.sampled_from([f"{RECEIVERS}/one", f"{RECEIVERS}/two"]),
        "uid": st.sampled_from([None, "main", "second"]),
        "eventId": st.sampled_from(["e-1", "e-2", "e-3"]),
        "disabled": st.sampled_from([False, False, True]),
        "gracePeriodSeconds": st.sampled_from([None, 0]),
    }
)


class Isolation(RuleBasedStateMachine):
    """After any steps each tenant is answered as if it were alone."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.tenants = world.run(world.tenants())
        for tenant in self.tenants:
            own = Named(of_the_other=False, number=0, uid=None)
            for name in ("endpoint.create", "message.create"):
                [call] = [call for call in CALLS if call.name == name]
                members = {"url": f"{RECEIVERS}/one", "uid": "main", "eventId": "e-1"}
                asked = Asked(call=call, who=tenant, tenant=tenant, named=own, iterator=None, key=None, members=members)
                assert world.run(self._same(asked)) in {201, 202}
            self.deliver(tenant == self.tenants[1], "dead_letter")

    @rule(
        call=st.sampled_from(TRIED),
        who=st.integers(0, 2),
        elsewhere=st.sampled_from([False, False, False, True]),
        named=NAMED,
        iterator=st.one_of(st.none(), NAMED),
        key=st.sampled_from([None, "k-1", "k-2"]),
        members=MEMBERS,
    )
    def call(
        self,
        call: Call,
        who: int,
        elsewhere: bool,
        named: Named,
        iterator: Named | None,
        key: str | None,
        members: Mapping[str, Any],
    ) -> None:
        """Somebody makes a call: a tenant with its own path or that of the other, or an operator."""
        asked = Asked(
            call=call,
            who=OPERATOR if who == 2 else self.tenants[who],
            tenant=self.tenants[(who + elsewhere) % 2],
            named=named,
            iterator=iterator,
            key=key,
            members=members,
        )
        self.world.run(self._same(asked))

    @rule(second=st.booleans(), state=st.sampled_from(["dead_letter", "delivered"]))
    def deliver(self, second: bool, state: str) -> None:
        """The workers end what is pending of a tenant."""
        for place in (self.world.both, self.world.alone[second]):
            self.world.run(place.deliver(self.tenants[second], state))

    def teardown(self) -> None:
        """Let each tenant make every call once more, those that delete last."""
        own = Named(of_the_other=False, number=0, uid=None)
        for tenant in self.tenants:
            for call in sorted(TRIED, key=lambda call: call.method == "DELETE"):
                asked = Asked(call=call, who=tenant, tenant=tenant, named=own, iterator=None, key=None, members={})
                self.world.run(self._same(asked))

    async def _same(self, asked: Asked) -> int:
        """Make the call where both live and where only one does; fail unless the answers are the same."""
        owner = self._owner(asked)
        if owner is None:
            return await self._same_everywhere(asked)
        status, text = await self._answered(self.world.both, asked, owner)
        alone = await self._answered(self.world.alone[self.tenants.index(owner)], asked, owner)
        assert (status, _plain(asked.call, text)) == (alone[0], _plain(asked.call, alone[1])), asked
        if asked.is_of_a_tenant:
            assert self._other(asked.who) not in text, asked
        return status

    async def _same_everywhere(self, asked: Asked) -> int:
        """Make a call that an operator makes for every tenant: a list has what each of them has alone."""
        found = [await self._answered(place, asked, asked.tenant) for place in (self.world.both, *self.world.alone)]
        both, *alone = [_plain(asked.call, text) for _, text in found]
        assert 1 == len({status for status, _ in found}), asked
        if asked.call.name in {"application.list", "background_task.list"} and found[0][0] == 200:
            listed, *others = [self._of_both(each) for each in (both, *alone)]
            assert sorted(listed) == sorted(others[0] + others[1]), asked
        else:
            assert both == alone[0] == alone[1], asked
        return found[0][0]

    def _of_both(self, page: Any) -> list[str]:
        texts = [json.dumps(each, sort_keys=True) for each in page["data"]]
        return [text for text in texts if any(f'"{tenant}' in text for tenant in self.tenants)]

    def _owner(self, asked: Asked) -> str | None:
        """Return the tenant whose answer it is; None if it is that of an operator for every tenant."""
        if asked.is_of_a_tenant:
            return asked.who
        if "{app_id}" in asked.call.path or "{task_id}" in asked.call.path:
            return asked.tenant
        return None

    def _other(self, tenant: str) -> str:
        return self.tenants[1 - self.tenants.index(tenant)]

    async def _answered(self, place: Place, asked: Asked, owner: str) -> tuple[int, str]:
        path = asked.call.path.replace("{app_id}", asked.tenant)
        for kind in FORMS:
            if f"{{{kind}}}" in path:
                path = path.replace(f"{{{kind}}}", await self._name(place, kind, asked.named, owner))
        query = {}
        if asked.iterator is not None and asked.call.name.endswith(".list") and "{app_id}" in asked.call.path:
            kind = "endpoint_id" if asked.call.name.startswith("endpoint") else "msg_id"
            query = {"limit": "1", "iterator": await self._name(place, kind, asked.iterator, owner)}
        return await place.answered(asked, path, query)

    async def _name(self, place: Place, kind: str, named: Named, owner: str) -> str:
        """Return what the path has there. What the other tenant has is named as it is where both live."""
        if kind == "event_type_name":
            return named.uid or "a"
        if kind == "endpoint_id" and named.uid is not None and not named.of_the_other:
            return named.uid
        if kind not in OWNED:
            return FORMS[kind]
        if named.of_the_other:
            found = await self.world.both.owned(kind, self._other(owner), named.number)
        else:
            found = await place.owned(kind, owner, named.number)
        return found or FORMS[kind]


def _plain(call: Call, text: str) -> Any:
    """Return an answer without what differs from one installation to the next."""
    for varying, name in _VARYING:
        text = varying.sub(name, text)
    answer = json.loads(text) if text else None
    if call.name in WITHOUT_ORDER and isinstance(answer, dict) and "data" in answer:
        answer["data"].sort(key=lambda each: each["url"])
    return answer


@pytest.mark.req("API-04")
@pytest.mark.timeout(600 + EXAMPLES * 5)  # a failing example is minimised first
def test_each_tenant_is_answered_as_if_it_were_alone(servers: Servers) -> None:
    how = settings(
        max_examples=EXAMPLES or 8,
        stateful_step_count=60,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    with World(servers) as world:
        run_state_machine_as_test(partial(Isolation, world), settings=how)  # type: ignore[arg-type]  # it calls it
