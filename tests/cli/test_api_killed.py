"""`hookseal api`, killed with SIGKILL inside a call that changes something, which the client then repeats."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from tests.api.alone import serving
from tests.cli.installation import Begun
from tests.operations.blocked import blocked
from tests.operations.test_replay_jobs import dead_letters
from tests.worker.waiting import eventually

SLOW_COMMIT: Final = """
CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON hookseal.{} DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION wait_here();
"""
SESSIONS: Final = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name IN ('hookseal-admin', 'hookseal-publisher')
"""
pytestmark = [pytest.mark.req("API-05", part="killed"), pytest.mark.req("API-06", part="four-calls")]
KEY: Final = {"idempotency-key": "auto_7d2f9c1e"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A call, its path behind the application, and its effects: what `count` counts, each with a row of `action`.

    `last` is the table that it writes last; `repeated` the status of the call when it has been made.
    """

    path: str
    body: dict[str, Any] | None
    count: str
    action: str | None
    last: str = "audit_log"
    made: int
    repeated: int


CHANGES: Final = (
    pytest.param(
        Change(
            path="msg",
            body={"eventType": "invoice.paid", "payload": {"id": 1}},
            count="SELECT count(*) FROM hookseal.deliveries WHERE state = 'pending'",
            action=None,
            last="events",
            made=202,
            repeated=202,
        ),
        id="message.create",
    ),
    pytest.param(
        Change(
            path="endpoint",
            body={"url": "https://second.example/hook"},
            count="SELECT count(*) FROM hookseal.endpoints WHERE url = 'https://second.example/hook'",
            action="endpoint.added",
            made=201,
            repeated=409,
        ),
        id="endpoint.create",
    ),
    pytest.param(
        Change(
            path="endpoint/{endpoint}/secret/rotate",
            body={},
            count="SELECT sum(generation - 1) FROM hookseal.endpoints",
            action="secret.rotated",
            made=200,
            repeated=200,
        ),
        id="endpoint.rotate_secret",
    ),
    pytest.param(
        Change(
            path="msg/{event}/endpoint/{endpoint}/resend",
            body=None,
            count="SELECT count(*) FROM hookseal.deliveries WHERE state = 'pending'",
            action="delivery.replayed",
            made=202,
            repeated=202,
        ),
        id="message_attempt.resend",
    ),
)


class Calling:
    """Makes one call with one key, in processes that are killed or not."""

    def __init__(self, begun: Begun, change: Change, path: str, token: str) -> None:
        self._begun = begun
        self._change = change
        self._path = path
        self._headers = {"authorization": f"Bearer {token}"} | KEY

    async def killed(self, lock: str) -> None:
        """Make the call, and kill the process when PostgreSQL waits for this lock."""
        async with (
            serving(self._begun.settings) as (process, ready),
            self._begun.stored.pool.acquire() as connection,
            connection.transaction(),  # it ends first: a wait for a lock that takes 5 s would fail
        ):
            await connection.execute(lock)
            call = asyncio.create_task(self._call(ready["url"]))
            await blocked(self._begun.stored)
            process.kill()
            with pytest.raises(httpx.TransportError):
                await call
        await eventually(self._sessions_ended)

    async def _sessions_ended(self) -> bool:
        """Return whether PostgreSQL has ended every session of the process: until then a commit may go on."""
        return bool(0 == await self._begun.stored.pool.fetchval(SESSIONS))

    async def answers(self, number: int) -> list[httpx.Response]:
        """Make the call that often in a new process, and return the answers."""
        async with serving(self._begun.settings) as (_, ready):
            return [await self._call(ready["url"]) for _ in range(number)]

    async def effects(self) -> int:
        """Return how often the call has had its effect, and fail unless the audit log has each."""
        pool = self._begun.stored.pool
        effects: int = await pool.fetchval(self._change.count)
        if self._change.action is not None:
            of_token = "SELECT count(*) FROM hookseal.audit_log WHERE action = $1 AND actor LIKE '%/token:test'"
            assert effects == await pool.fetchval(of_token, self._change.action)
        return effects

    async def _call(self, url: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, headers=self._headers, timeout=60) as client:
            return await client.post(self._path, json=self._change.body)


async def calling(begun: Begun, change: Change) -> Calling:
    """Return what makes the call, with an endpoint and a dead letter for it."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await dead_letters(begun.stored, 1)
    event = await begun.stored.pool.fetchval("SELECT event_id FROM hookseal.deliveries")
    scopes = [part for scope in ("publish", "manage", "operate", "reveal") for part in ("--scope", scope)]
    added = await begun.run("token", "add", "--name", "test", "--tenant", "acme", "--json", *scopes)
    path = f"/api/v1/app/acme/{change.path.format(endpoint=endpoint, event=event)}"
    return Calling(begun, change, path, added.json["token"])


@pytest.mark.parametrize("change", CHANGES)
async def test_a_call_that_is_killed_before_its_commit_is_made_by_its_repetition(begun: Begun, change: Change) -> None:
    """It has changed nothing. Only a message, which is one statement, is stored once PostgreSQL has that."""
    calls = await calling(begun, change)
    await calls.killed(f"LOCK TABLE hookseal.{change.last} IN SHARE MODE")
    assert await calls.effects() <= int(change.last == "events")

    first, second = await calls.answers(2)
    assert [change.made, change.repeated] == [first.status_code, second.status_code]
    assert 1 == await calls.effects()


@pytest.mark.parametrize("change", CHANGES)
async def test_a_call_that_is_killed_in_its_commit_is_not_made_again(begun: Begun, change: Change) -> None:
    calls = await calling(begun, change)
    await begun.stored.pool.execute(SLOW_COMMIT.format(change.last))
    await calls.killed("SELECT pg_advisory_xact_lock(1)")
    assert 1 == await calls.effects()

    first, second = await calls.answers(2)
    assert [change.repeated] * 2 == [first.status_code, second.status_code]
    assert first.json() == second.json()
    assert 1 == await calls.effects()
