"""Every method of `Admin`, called with a login of each SQL role: it works, or it raises `Refused`.

Every role has the master key here, as a worker has: so the rights in PostgreSQL alone decide. A method without a row
fails the test.
"""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from operator import attrgetter
from typing import Any, Final

import pytest

from hookseal import Admin
from hookseal.admin import ImportRow
from hookseal.admin.admin import GROUPS
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.event_types import CataloguedType
from hookseal.dispatcher.store.tokens import NewPortal, NewToken, Scope, digest
from hookseal.errors import Conflict, Refused, SecretDenied
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations import producers
from hookseal.operations.event_types import add_event_type
from hookseal.operations.tokens import add_portal, add_token
from tests import rows
from tests.doubles.logins import login
from tests.doubles.master_keys import OLD
from tests.doubles.stored import Installation
from tests.operations.test_replay_jobs import dead_letters, started

pytestmark = [pytest.mark.req("OPS-10"), pytest.mark.req("DEL-18")]

ROLES: Final = ("worker", "operator", "api", "producer", "readonly", "publisher", "reveal")
READS: Final = frozenset({"worker", "operator", "api", "readonly"})
WRITES: Final = frozenset({"operator"})
MANAGES: Final = frozenset({"operator", "api"})
ALSO_WORKER: Final = frozenset({"worker", "operator"})
ALL_THREE: Final = frozenset({"worker", "operator", "api"})
SEES_RESULTS: Final = frozenset({"operator", "api", "readonly"})
SEES_PRODUCERS: Final = frozenset({"operator", "readonly"})


class Targets:
    """What the methods name, made anew for each call by the owner of the database."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._number = 0

    def url(self) -> str:
        """Return a url that no endpoint has."""
        self._number += 1
        return f"https://receiver.example/{self._number}"

    async def endpoint(self) -> dict[str, Any]:
        """Return the arguments that name an endpoint."""
        return {
            "tenant_id": "acme",
            "endpoint_id": (await self._installation.endpoint(url=self.url())).pointer.endpoint_id,
        }

    async def ed25519(self) -> dict[str, Any]:
        """Return those of one that signs with ed25519."""
        new = NewEndpoint(tenant_id=TenantId("acme"), url=self.url(), event_types=("*",), algorithm=Algorithm.ED25519)
        return {"tenant_id": "acme", "endpoint_id": (await self._installation.add(new)).pointer.endpoint_id}

    async def with_headers(self) -> dict[str, Any]:
        """Return those of one with a header of its own."""
        new = NewEndpoint(tenant_id=TenantId("acme"), url=self.url(), event_types=("*",))
        added = await self._installation.add(new, headers={"x-a": b"1"})
        return {"tenant_id": "acme", "endpoint_id": added.pointer.endpoint_id}

    async def disabled(self) -> dict[str, Any]:
        """Return those of a disabled one."""
        named = await self.endpoint()
        await self._installation.pool.execute(
            "UPDATE hookseal.endpoints SET enabled = false WHERE id = $1::text::uuid", named["endpoint_id"]
        )
        return named

    async def rotated(self) -> dict[str, Any]:
        """Return those of one whose overlap is running."""
        named = await self.endpoint()
        await self._installation.rotate(named["endpoint_id"], overlap_seconds=86_400)
        return named

    async def dead(self, *, in_line: bool = False) -> dict[str, Any]:
        """Return the arguments that name a dead letter, also one that stops its line."""
        delivery = (await dead_letters(self._installation, 1))[0]
        if in_line:
            await self._installation.pool.execute(
                "UPDATE hookseal.deliveries SET position = 1 WHERE id = $1::text::uuid", delivery
            )
        return {"tenant_id": "acme", "delivery_id": delivery}

    async def attempt(self) -> dict[str, Any]:
        """Return the arguments that name an attempt."""
        delivery = (await dead_letters(self._installation, 1))[0]
        await rows.attempt(self._installation.pool, delivery)
        return {"tenant_id": "acme", "attempt_id": f"{delivery}.1"}

    async def event_to_one(self) -> dict[str, Any]:
        """Return the arguments that name an event and an endpoint with a dead letter of it."""
        row = await self._installation.pool.fetchrow(
            "SELECT event_id, endpoint_id::text FROM hookseal.deliveries WHERE id = $1::text::uuid",
            (await dead_letters(self._installation, 1))[0],
        )
        return {"tenant_id": "acme", **dict(row or {})}

    async def event(self) -> dict[str, Any]:
        """Return the arguments that name an event."""
        return {"tenant_id": "acme", "event_id": (await self._installation.published()).event_id}

    async def granted(self) -> str:
        """Return the name of a role that may publish for acme."""
        role = await self._installation.pool.fetchval("SELECT session_user")
        async with self._installation.pool.acquire() as connection:
            await producers.grant(self._installation.operator(connection), role, TenantId("acme"))
        return str(role)

    def name(self) -> str:
        """Return a name that no token, tenant or event type has."""
        self._number += 1
        return f"t{self._number}"

    async def event_type(self) -> dict[str, Any]:
        """Return the arguments that name an event type."""
        name = self.name()
        given = CataloguedType(name=name, description="", schemas=None, deprecated=False, archived=False)
        await self._installation.act(add_event_type, given)
        return {"name": name}

    async def tenant(self) -> str:
        """Return a tenant with an endpoint."""
        tenant = self.name()
        await self._installation.endpoint(tenant)
        return tenant

    async def token(self) -> str:
        """Return the name of a token."""
        new = NewToken(
            name=self.name(),
            tenant_id=TenantId("acme"),
            scopes=(Scope.READ,),
            expires_at=None,
            digest=self._number.to_bytes(32),
        )
        await self._installation.act(add_token, new)
        return new.name

    async def token_id(self) -> str:
        """Return the id of a token."""
        identifier = await self._installation.pool.fetchval(
            "SELECT id::text FROM hookseal.api_tokens WHERE name = $1", await self.token()
        )
        return str(identifier)

    async def code(self) -> dict[str, Any]:
        """Return the argument that is a code of a portal."""
        code = f"whsc_{self.name():x<43}"
        new = NewPortal(
            tenant_id=TenantId("acme"),
            scopes=(Scope.READ,),
            seconds=60,
            not_after=None,
            user=None,
            session_id=None,
            refresh_url=None,
            digest=digest(f"token of {code}".encode()),
            code_digest=digest(code.encode()),
        )
        await self._installation.act(add_portal, new)
        return {"code": code}

    async def replay(self) -> dict[str, Any]:
        """Return the arguments that name a replay job, the only one that runs."""
        await self._installation.pool.execute("DELETE FROM hookseal.replays")
        return {"tenant_id": "acme", "replay_id": (await started(self._installation)).replay_id}


KEY: Final = {"key_id": OLD.key_id}
HEADS: Final = '{"tenants":[{"tenant_id":"acme","head_sequence":1,"head_mac":"00"}]}'
ACME: Final[dict[str, Any]] = {"tenant_id": "acme"}
BY: Final[dict[str, Any]] = {"actor": "jane"}
Call = Callable[[Any, Targets], Awaitable[object]]
Row = tuple[str, frozenset[str], Call]


async def _added(method: Any, make: Targets) -> object:
    return await method(**ACME, url=make.url(), event_types=["*"], **BY)


async def _imported(method: Any, make: Targets) -> None:
    """Import a row; a role without the right to add an endpoint is refused row by row."""
    values = {**ACME, "url": make.url(), "event_types": ["*"], "secret": "of an older system"}
    if (await method(rows=[ImportRow(line=2, values=values)], **BY)).failures:
        raise Refused


def _on(kind: str, **arguments: Any) -> Call:
    async def call(method: Any, make: Targets) -> object:
        return await method(**await getattr(make, kind)(), **arguments)

    return call


def _with(**arguments: Any) -> Call:
    async def call(method: Any, _make: Targets) -> object:
        return await method(**arguments)

    return call


def _conflicts(**arguments: Any) -> Call:
    """Return a call for the active key, which is a conflict for everybody with the rights."""

    async def call(method: Any, _make: Targets) -> None:
        with pytest.raises(Conflict):
            await method(**arguments)

    return call


async def _moved(method: Any, make: Targets) -> object:
    return await method(**await make.endpoint(), url=make.url(), **BY)


async def _shared(method: Any, make: Targets) -> object:
    return await method(**await make.endpoint(), url=make.url(), allow_same_url=True, **BY)


async def _read(method: Any, make: Targets) -> object:
    return await method(**ACME, event_ids=[(await make.event())["event_id"]], **BY)


async def _some_events(method: Any, make: Targets) -> object:
    return await method(**ACME, event_ids=[(await make.event())["event_id"]])


async def _some_endpoints(method: Any, make: Targets) -> object:
    return await method(**ACME, endpoint_ids=[(await make.endpoint())["endpoint_id"]])


async def _resent(method: Any, make: Targets) -> object:
    return await method(**await make.event_to_one(), **BY)


async def _skipped(method: Any, make: Targets) -> object:
    return await method(**await make.dead(in_line=True), **BY)


async def _of_producer(method: Any, make: Targets) -> object:
    return await method(role=await make.granted(), **ACME, **BY)


async def _deleted_tenant(method: Any, make: Targets) -> object:
    return await method(tenant_id=await make.tenant(), **BY)


async def _named_token(method: Any, make: Targets) -> object:
    return await method(token_id=await make.token_id())


async def _revoked_token(method: Any, make: Targets) -> object:
    return await method(name=await make.token(), **BY)


TABLE: Final[tuple[Row, ...]] = (
    ("endpoints.add", MANAGES, _added),
    ("endpoints.import_rows", MANAGES, _imported),
    ("endpoints.get", READS, _on("endpoint")),
    ("endpoints.find", READS, _on("endpoint")),
    ("endpoints.find_all", READS, _some_endpoints),
    ("endpoints.list", READS, _with(**ACME)),
    ("endpoints.stats", READS, _with(**ACME)),
    ("endpoints.deliveries_by_state", READS, _on("endpoint")),
    ("endpoints.update", MANAGES, _moved),
    ("endpoints.update", MANAGES, _shared),
    ("endpoints.update", MANAGES, _on("endpoint", timeout_ms=2_000, **BY)),
    ("endpoints.update", MANAGES, _on("disabled", enabled=True, **BY)),
    ("endpoints.update", MANAGES, _on("endpoint", headers={"X-A": "1"}, **BY)),
    ("endpoints.enable", MANAGES, _on("disabled", **BY)),
    ("endpoints.retry", ALL_THREE, _on("endpoint", **BY)),
    ("endpoints.disable", ALL_THREE, _on("endpoint", reason="x", **BY)),
    ("endpoints.delete", MANAGES, _on("endpoint", **BY)),
    ("endpoints.send_example", MANAGES, _on("endpoint", event_type="a.b", data=1, **BY)),
    ("endpoints.test", ALSO_WORKER, _on("endpoint", **BY)),
    ("status", SEES_RESULTS, _with()),
    ("find", SEES_RESULTS, _with(identifier="acme")),
    ("check", ALL_THREE, _with()),
    ("events.list", READS, _with(**ACME)),
    ("events.get", READS, _on("event")),
    ("events.find", READS, _on("event")),
    ("events.payload", ALL_THREE, _on("event", **BY)),
    ("events.find_all", READS, _some_events),
    ("events.payloads", ALL_THREE, _read),
    ("deliveries.list", READS, _with(**ACME)),
    ("deliveries.get", READS, _on("dead")),
    ("deliveries.why", READS, _on("dead")),
    ("deliveries.replay", ALL_THREE, _on("dead", **BY)),
    ("deliveries.skip", ALL_THREE, _skipped),
    ("deliveries.resend", ALL_THREE, _resent),
    ("attempts.list", READS, _on("event")),
    ("attempts.get", READS, _on("attempt")),
    ("audit.list", READS, _with(**ACME)),
    ("audit.heads", READS, _with(tenant_id="*")),
    ("audit.verify", ALL_THREE, _with(tenant_id="*")),
    ("audit.verify_export", ALL_THREE, _with(**ACME, from_export=(), heads=HEADS)),
    ("restores.check", ALL_THREE, _with(tenant_id="*")),
    ("restores.accept", WRITES, _with(heads=HEADS, **BY)),
    ("restores.accept", ALL_THREE, _on("endpoint", heads=HEADS, **BY)),  # it is not stale: nothing is to be changed
    ("keys.initialise", ALL_THREE, _conflicts(**BY)),
    ("keys.status", READS, _with()),
    ("keys.registered", ALL_THREE, _with()),
    ("keys.stage", frozenset(), _with(**BY)),  # there is no next key
    # The key is active, so nothing is changed: tests/cli/test_every_command_by_role.py has who may change one.
    ("keys.promote", ALL_THREE, _with(**KEY, **BY)),
    ("keys.retire", ALSO_WORKER, _conflicts(**KEY, **BY)),
    ("keys.destroy", ALL_THREE, _conflicts(**KEY, **BY)),
    ("keys.records", ALSO_WORKER, _with(**KEY)),
    ("keys.rewrap", ALSO_WORKER, _conflicts(**KEY, **BY)),
    ("keys.count_versions", ALL_THREE, _with(**KEY)),
    ("keys.versions", ALL_THREE, _with(**KEY)),
    ("keys.compromise", ALL_THREE, _conflicts(**KEY, **BY)),
    ("keys.rotate_integrity", WRITES, _with(**BY)),
    ("replays.start", MANAGES, _with(**ACME, **BY)),
    ("replays.count", ALL_THREE, _with(**ACME)),
    ("replays.get", READS, _on("replay")),
    ("replays.list", READS, _with(**ACME)),
    ("replays.cancel", ALL_THREE, _on("replay", **BY)),
    ("secrets.rotate", ALL_THREE, _on("endpoint", **BY)),
    ("secrets.rotate", MANAGES, _on("endpoint", overlap_seconds=0, **BY)),
    ("secrets.rotate", MANAGES, _on("rotated", force=True, **BY)),
    ("secrets.roll_back", MANAGES, _on("rotated", **BY)),
    ("secrets.end_overlap", MANAGES, _on("rotated", **BY)),
    ("secrets.wait_until_complete", READS, _on("endpoint", generation=1)),
    ("secrets.older_claims", READS, _on("endpoint", generation=1)),
    ("secrets.check_switch", WRITES, _on("rotated", **BY)),
    ("secrets.status", SEES_RESULTS, _on("endpoint")),
    ("secrets.probe", WRITES, _on("rotated", **BY)),
    ("secrets.versions", READS, _on("endpoint")),
    ("secrets.public_keys", ALSO_WORKER, _on("ed25519")),
    ("secrets.purge", ALL_THREE, _with(**ACME, **BY, older_than_days=7)),
    ("secrets.purge", ALL_THREE, _with(tenant_id="acme", **BY, dry_run=True)),
    ("secrets.move", ALL_THREE, _with(to="db", **BY)),  # nothing is to be moved
    ("secrets.migrate", WRITES, _with(**BY)),
    ("secrets.clear_caches", WRITES, _with(**BY)),
    ("producers.grant", WRITES, _of_producer),
    ("producers.revoke", WRITES, _of_producer),
    ("producers.list", SEES_PRODUCERS, _with()),
    ("event_types.add", MANAGES, lambda method, make: method(name=make.name(), description="", **BY)),
    ("event_types.get", SEES_RESULTS, _on("event_type")),
    ("event_types.list", SEES_RESULTS, _with()),
    ("event_types.update", MANAGES, _on("event_type", deprecated=True, **BY)),
    ("event_types.delete", MANAGES, _on("event_type", **BY)),
    ("tenants.add", MANAGES, lambda method, make: method(tenant_id=make.name(), **BY)),
    ("tenants.get", SEES_RESULTS, _with(**ACME)),
    ("tenants.list", SEES_RESULTS, _with()),
    ("tenants.update", MANAGES, lambda method, make: method(**ACME, name=make.name(), **BY)),
    ("tenants.delete", MANAGES, _deleted_tenant),
    ("tokens.add", MANAGES, lambda method, make: method(name=make.name(), **ACME, **BY)),
    ("tokens.list", SEES_RESULTS, _with(**ACME)),
    ("tokens.get", SEES_RESULTS, _named_token),
    ("tokens.find", MANAGES, lambda method, _: method(f"whst_{'x' * 43}")),
    ("tokens.revoke", MANAGES, _revoked_token),
    ("tokens.list", SEES_RESULTS, _with(**ACME, portal=True)),
    ("portal.add", MANAGES, _with(**ACME, **BY)),
    ("portal.exchange", MANAGES, _on("code")),
    ("portal.refresh_url", MANAGES, _on("code")),
    ("portal.expire_all", MANAGES, _with(**ACME, **BY)),
    ("secrets.reveal", ALSO_WORKER, _on("endpoint", **BY)),
)  # fmt: skip


def methods(admin: Admin) -> set[str]:
    """Return the names of all methods."""
    return {
        f"{group}.{name}"
        for group in GROUPS
        for name, _ in inspect.getmembers(getattr(admin, group), inspect.iscoroutinefunction)
        if not name.startswith("_")
    } | {name for name, _ in inspect.getmembers(admin, inspect.iscoroutinefunction)}


async def test_every_method_has_a_row(admin: Admin) -> None:
    """Each method of each group is in the table."""
    assert methods(admin) == {name for name, _, _ in TABLE}


@pytest.mark.req("API-09", part="role")
async def test_each_role_calls_what_the_table_says(installation: Installation, environ: dict[str, str]) -> None:
    """A method works with the roles of its row, and raises `Refused` or `SecretDenied` with every other."""
    make, wrong = Targets(installation), []
    await installation.endpoint()
    async with AsyncExitStack() as stack:
        for role in ROLES:
            _, url = await stack.enter_async_context(
                login(installation.pool, environ["DATABASE_URL"], f"hookseal_{role}")
            )
            try:
                admin = await stack.enter_async_context(Admin.connect(url, environ=environ))
            except Refused:
                wrong += [(name, role, "Refused") for name, works_for, _ in TABLE if role in works_for]
                continue
            for name, works_for, call in TABLE:
                said = "works"
                try:
                    await call(attrgetter(name)(admin), make)
                except (Refused, SecretDenied):
                    said = "refused"
                except Exception as error:  # noqa: BLE001 -- it is reported with the others
                    said = repr(error)
                if said != ("works" if role in works_for else "refused"):
                    wrong.append((name, role, said))

    assert [] == wrong


OPENING: Final[tuple[tuple[str, Call], ...]] = (
    ("secrets.reveal", _on("endpoint", **BY)),
    ("secrets.public_keys", _on("ed25519")),
    ("endpoints.test", _on("endpoint", **BY)),
    ("endpoints.update", _on("with_headers", change_headers={"X-B": "2"}, **BY)),
)


@pytest.mark.req("API-09", part="role")
async def test_secrets_of_tenants_are_opened_by_a_right_of_their_own(
    installation: Installation, environ: dict[str, str]
) -> None:
    """The role of the HTTP API opens none; with `hookseal_reveal` it does."""
    make, said = Targets(installation), []
    for roles in (("hookseal_api",), ("hookseal_api", "hookseal_reveal")):
        async with (
            login(installation.pool, environ["DATABASE_URL"], *roles) as (_, url),
            Admin.connect(url, environ=environ) as admin,
        ):
            for name, call in OPENING:
                group, _, method = name.partition(".")
                try:
                    await call(getattr(getattr(admin, group), method), make)
                    said.append("works")
                except (Refused, SecretDenied):
                    said.append("refused")

    assert ["refused"] * len(OPENING) + ["works"] * len(OPENING) == said


async def test_headers_that_may_not_be_opened_can_be_replaced(
    installation: Installation, environ: dict[str, str]
) -> None:
    make = Targets(installation)
    async with (
        login(installation.pool, environ["DATABASE_URL"], "hookseal_api") as (_, url),
        Admin.connect(url, environ=environ) as admin,
    ):
        updated: Any = await _on("with_headers", headers={"X-B": "2"}, **BY)(admin.endpoints.update, make)

    assert ("headers",) == updated.changed
