"""Every call that changes something: how it is made, what its effect is, and what a repetition of it is answered."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from hookseal.api.call import Call
from hookseal.api.calls import CALLS
from hookseal.dispatcher.store.event_types import CataloguedType
from hookseal.dispatcher.store.tokens import NewToken, Scope
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.event_types import add_event_type
from hookseal.operations.tokens import add_token
from tests import rows
from tests.doubles.stored import Installation
from tests.operations.test_replay_jobs import dead_letters, started

CALL: Final[dict[str, Call]] = {call.name: call for call in CALLS}
HOOK: Final = "https://second.example/hook"
NOWHERE: Final = "0193b0c0-0000-7000-8000-000000000000"
_AUDITED: Final = "SELECT count(*) FROM hookseal.audit_log WHERE action = $1 AND actor LIKE '%/token:%'"
Names = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A call that changes something, and its effects: what `count` counts, each with an audit row of `action`.

    `last` is the table that it writes last, and `repeated` the status of a repetition if it is not that of the first
    answer. `other` is a body with other content; without a body the path is another one.
    """

    name: str
    body: dict[str, Any] | None = None
    other: dict[str, Any] | None = None
    count: str
    action: str | None
    last: str = "audit_log"
    made: int | None = None
    repeated: int | None = None
    named: tuple[tuple[str, str], ...] = ()
    before: Callable[[Installation, Names], Awaitable[object]] | None = None

    @property
    def method(self) -> str:
        """The method of the request."""
        return CALL[self.name].method

    @property
    def statuses(self) -> tuple[int, int]:
        """The status of the first answer, and that of a repetition."""
        made = self.made or CALL[self.name].status
        return made, self.repeated or made

    async def prepare(self, installation: Installation) -> Names:
        """Give acme, `_operator` and the catalogue what the call needs, and return the names for its path."""
        endpoint = (await installation.endpoint()).pointer.endpoint_id
        await dead_letters(installation, 1)
        row = await installation.pool.fetchrow("SELECT id::text, event_id FROM hookseal.deliveries")
        assert row is not None
        if self.name.startswith("operational_webhook"):
            endpoint = (await installation.endpoint("_operator", url="https://operator.example")).pointer.endpoint_id
        known = CataloguedType(name="known", description="", schemas=None, deprecated=False, archived=False)
        await installation.act(add_event_type, known)
        token = NewToken(
            name="known", tenant_id=TenantId("acme"), scopes=(Scope.READ,), expires_at=None, digest=b"k" * 32
        )
        await installation.act(add_token, token)
        names = {
            "app_id": "acme",
            "endpoint_id": endpoint,
            "delivery_id": row["id"],
            "job_id": NOWHERE,
            "msg_id": row["event_id"],
            "event_type_name": "known",
            "token_name": "known",
        } | dict(self.named)
        if self.before is not None:
            await self.before(installation, names)
        return names

    def path(self, names: Names) -> str:
        """Return the path of the call with these names."""
        return CALL[self.name].path.format(**names)

    async def effects(self, installation: Installation) -> int:
        """Return how often the call has had its effect, and fail unless the audit log has each."""
        effects: int = await installation.pool.fetchval(self.count)
        if self.action is not None:
            assert effects == await installation.pool.fetchval(_AUDITED, self.action)
        return effects


async def _overlap(installation: Installation, names: Names) -> None:
    await installation.rotate(EndpointId(names["endpoint_id"]), overlap_seconds=3600)


async def _running(installation: Installation, names: Names) -> None:
    names["job_id"] = (await started(installation)).replay_id
    names["task_id"] = f"acme.{names['job_id']}"


async def _stopped(installation: Installation, names: Names) -> None:
    await rows.change(installation.pool, "deliveries", names["delivery_id"], position=1)


def _of(table: str, condition: str) -> str:
    return f"SELECT count(*) FROM hookseal.{table} WHERE {condition}"  # noqa: S608 -- names of ours


_ENDPOINT: Final = {"url": HOOK}
_ROTATIONS: Final = "SELECT sum(generation - 1)::bigint FROM hookseal.endpoints WHERE tenant_id = '{}'"
CHANGES: Final = (
    Change(
        name="message.create",
        body={"eventType": "invoice.paid", "payload": {"id": 1}},
        other={"eventType": "invoice.paid", "payload": {"id": 2}},
        count=_of("deliveries", "state = 'pending'"),
        action=None,
        last="events",
    ),
    Change(
        name="message_attempt.resend",
        count=_of("deliveries", "state = 'pending'"),
        action="delivery.replayed",
    ),
    Change(
        name="endpoint.create",
        body=_ENDPOINT,
        other=_ENDPOINT | {"description": "other"},
        count=_of("endpoints", f"url = '{HOOK}'"),
        action="endpoint.added",
    ),
    Change(
        name="endpoint.upsert",
        body=_ENDPOINT,
        named=(("endpoint_id", "second"),),
        count=_of("endpoints", "uid = 'second'"),
        action="endpoint.added",
        made=201,
        repeated=200,
    ),
    Change(
        name="endpoint.patch",
        body={"description": "new"},
        count=_of("endpoints", "description = 'new'"),
        action="endpoint.updated",
    ),
    Change(
        name="endpoint.delete",
        count="SELECT 1 - count(*) FROM hookseal.endpoints WHERE tenant_id = 'acme'",
        action="endpoint.deleted",
        repeated=404,
    ),
    Change(
        name="endpoint.rotate_secret",
        body={},
        other={"gracePeriodSeconds": 60},
        count=_ROTATIONS.format("acme"),
        action="secret.rotated",
    ),
    Change(
        name="endpoint.set_headers",
        body={"headers": {"X-A": "1"}},
        count=_of("endpoints", "header_names = '{x-a}'"),
        action="endpoint.updated",
    ),
    Change(
        name="endpoint.patch_headers",
        body={"headers": {"X-A": "1"}},
        count=_of("endpoints", "header_names = '{x-a}'"),
        action="endpoint.updated",
    ),
    Change(
        name="endpoint.send_example",
        body={"eventType": "a.test", "payload": {"id": 1}},
        other={"eventType": "a.test", "payload": {"id": 2}},
        count=_of("events", "event_type = 'a.test'"),
        action="delivery.example_sent",
    ),
    Change(
        name="endpoint.recover",
        body={"since": "2020-01-01T00:00:00Z"},
        other={"since": "2021-01-01T00:00:00Z"},
        count=_of("replays", "true"),
        action="replay.started",
    ),
    Change(
        name="application.create",
        body={"name": "New", "uid": "new"},
        other={"name": "Other", "uid": "new"},
        count=_of("tenants", "tenant_id = 'new'"),
        action="tenant.added",
    ),
    Change(
        name="application.upsert",
        body={"name": "New"},
        named=(("app_id", "new"),),
        count=_of("tenants", "tenant_id = 'new'"),
        action="tenant.added",
        made=201,
        repeated=200,
    ),
    Change(
        name="application.patch",
        body={"name": "Acme"},
        count=_of("tenants", "name = 'Acme'"),
        action="tenant.updated",
    ),
    Change(
        name="application.delete",
        count=_of("tenants", "tenant_id = 'acme' AND deleted_at IS NOT NULL"),
        action="tenant.deleted",
        repeated=404,
    ),
    Change(
        name="event_type.create",
        body={"name": "new", "description": ""},
        other={"name": "new", "description": "other"},
        count=_of("event_types", "name = 'new'"),
        action="event_type.added",
    ),
    Change(
        name="event_type.upsert",
        body={"description": ""},
        named=(("event_type_name", "new"),),
        count=_of("event_types", "name = 'new'"),
        action="event_type.added",
        made=201,
        repeated=200,
    ),
    Change(
        name="event_type.patch",
        body={"deprecated": True},
        count=_of("event_types", "deprecated"),
        action="event_type.updated",
    ),
    Change(
        name="event_type.delete",
        count=_of("event_types", "archived"),
        action="event_type.updated",
    ),
    Change(
        name="hookseal.roll_back",
        body={},
        other={"gracePeriodSeconds": 60},
        count="SELECT sum(generation - 2)::bigint FROM hookseal.endpoints WHERE tenant_id = 'acme'",
        action="secret.rolled_back",
        before=_overlap,
    ),
    Change(
        name="hookseal.end_overlap",
        count="SELECT sum(generation - 2)::bigint FROM hookseal.endpoints WHERE tenant_id = 'acme'",
        action="secret.overlap_ended",
        before=_overlap,
    ),
    Change(
        name="hookseal.message.create_many",
        body={"messages": [{"eventType": "invoice.paid", "payload": {"id": 1}}]},
        other={"messages": [{"eventType": "invoice.paid", "payload": {"id": 2}}]},
        count=_of("deliveries", "state = 'pending'"),
        action=None,
        last="events",
    ),
    Change(
        name="hookseal.endpoint.create",
        body=_ENDPOINT,
        other=_ENDPOINT | {"description": "other"},
        count=_of("endpoints", f"url = '{HOOK}'"),
        action="endpoint.added",
    ),
    Change(
        name="hookseal.settings.patch",
        body={"concurrency": 7},
        count=_of("endpoints", "concurrency = 7"),
        action="endpoint.updated",
    ),
    Change(
        name="hookseal.replay.start",
        body={},
        other={"since": "2021-01-01T00:00:00Z"},
        count=_of("replays", "true"),
        action="replay.started",
    ),
    Change(
        name="hookseal.background_task.cancel",
        count=_of("replays", "state = 'cancelled'"),
        action="replay.cancelled",
        before=_running,
    ),
    Change(
        name="hookseal.skip",
        count=_of("deliveries", "position IS NULL"),
        action="delivery.skipped",
        before=_stopped,
    ),
    Change(
        name="hookseal.token.create",
        body={"name": "new", "tenantId": "acme", "scopes": ["manage"]},
        other={"name": "new", "tenantId": "acme", "scopes": ["publish"]},
        count=_of("api_tokens", "name = 'new'"),
        action="token.added",
    ),
    Change(
        name="hookseal.token.revoke",
        count=_of("api_tokens", "name = 'known' AND revoked_at IS NOT NULL"),
        action="token.revoked",
        repeated=404,
    ),
    Change(
        name="operational_webhook.endpoint.create",
        body=_ENDPOINT,
        other=_ENDPOINT | {"description": "other"},
        count=_of("endpoints", f"tenant_id = '_operator' AND url = '{HOOK}'"),
        action="endpoint.added",
    ),
    Change(
        name="operational_webhook.endpoint.upsert",
        body=_ENDPOINT,
        named=(("endpoint_id", "second"),),
        count=_of("endpoints", "tenant_id = '_operator' AND uid = 'second'"),
        action="endpoint.added",
        made=201,
        repeated=200,
    ),
    Change(
        name="operational_webhook.endpoint.delete",
        count="SELECT 1 - count(*) FROM hookseal.endpoints WHERE tenant_id = '_operator'",
        action="endpoint.deleted",
        repeated=404,
    ),
    Change(
        name="operational_webhook.endpoint.rotate_secret",
        body={},
        other={"gracePeriodSeconds": 60},
        count=_ROTATIONS.format("_operator"),
        action="secret.rotated",
    ),
    Change(
        name="operational_webhook.endpoint.set_headers",
        body={"headers": {"X-A": "1"}},
        count=_of("endpoints", "header_names = '{x-a}'"),
        action="endpoint.updated",
    ),
)
