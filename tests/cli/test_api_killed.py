"""`hookseal api`, killed with SIGKILL inside a call that changes something, which the client then repeats.

A process is killed before its commit, within it, and after it: each answer here is of a process of its own, which is
killed when it has answered.
"""

import asyncio
from typing import Any, Final

import httpx
import pytest

from tests.api.alone import serving
from tests.api.changes import CHANGES, Change
from tests.cli.installation import Begun
from tests.operations.blocked import blocked
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
pytestmark = [pytest.mark.req("API-05"), pytest.mark.req("API-06")]
KEY: Final = {"idempotency-key": "auto_7d2f9c1e"}
EVERY: Final = [pytest.param(change, id=change.name) for change in CHANGES]


class Calling:
    """Makes one call with one key, in processes that are killed before or after they have answered."""

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
            call = asyncio.create_task(self.answer_of(ready["url"]))
            await blocked(self._begun.stored)
            process.kill()
            with pytest.raises(httpx.TransportError):
                await call
        await eventually(self._sessions_ended)

    async def _sessions_ended(self) -> bool:
        """Return whether PostgreSQL has ended every session of the process: until then a commit may go on."""
        return bool(0 == await self._begun.stored.pool.fetchval(SESSIONS))

    async def answer(self) -> tuple[int, Any]:
        """Make the call in a new process, which is killed then; return the status and the body, without a token."""
        async with serving(self._begun.settings) as (_, ready):
            response = await self.answer_of(ready["url"])
        body = response.json() if response.content else {}
        return response.status_code, body | {"token": None}

    async def effects(self) -> int:
        """Return how often the call has had its effect, and fail unless the audit log has each."""
        return await self._change.effects(self._begun.stored)

    async def answer_of(self, url: str) -> httpx.Response:
        """Make the call in the process with this address."""
        async with httpx.AsyncClient(base_url=url, headers=self._headers, timeout=60) as client:
            return await client.request(self._change.method, self._path, json=self._change.body)


async def calling(begun: Begun, change: Change) -> Calling:
    """Return what makes the call, with all that it needs."""
    names = await change.prepare(begun.stored)
    scopes = [part for scope in ("publish", "manage", "operate", "reveal") for part in ("--scope", scope)]
    added = await begun.run("token", "add", "--name", "test", "--tenant", "*", "--json", *scopes)
    return Calling(begun, change, change.path(names), added.json["token"])


@pytest.mark.parametrize("change", EVERY)
async def test_a_call_that_is_killed_before_its_commit_is_made_by_its_repetition(begun: Begun, change: Change) -> None:
    """It has changed nothing. Only a message, which is one statement, is stored once PostgreSQL has that.

    The process that makes it is killed after its commit, so that a client which got no answer repeats it once more.
    """
    calls = await calling(begun, change)
    await calls.killed(f"LOCK TABLE hookseal.{change.last} IN SHARE MODE")
    assert await calls.effects() <= int(change.last == "events")

    first, again = await calls.answer(), await calls.answer()
    assert change.statuses == (first[0], again[0]), (first, again)
    if change.method == "POST":
        assert first == again
    assert 1 == await calls.effects()


@pytest.mark.parametrize("name", ["endpoint.create", "message_attempt.resend", "endpoint.rotate_secret"])
async def test_a_repetition_waits_for_a_call_that_is_killed(begun: Begun, name: str) -> None:
    """It came to another process while the first call was in work, and makes it."""
    change = next(each for each in CHANGES if each.name == name)
    calls = await calling(begun, change)
    async with serving(begun.settings) as (_, ready):
        async with begun.stored.pool.acquire() as connection, connection.transaction():
            await connection.execute(f"LOCK TABLE hookseal.{change.last} IN SHARE MODE")
            async with serving(begun.settings) as (process, first_ready):
                first = asyncio.create_task(calls.answer_of(first_ready["url"]))
                await blocked(begun.stored)
                again = asyncio.create_task(calls.answer_of(ready["url"]))
                await blocked(begun.stored, 2)
                process.kill()
                with pytest.raises(httpx.TransportError):
                    await first
        answered = await again

    assert change.statuses[0] == answered.status_code, answered.text
    assert 1 == await calls.effects()


@pytest.mark.parametrize("change", EVERY)
async def test_a_call_that_is_killed_in_its_commit_is_not_made_again(begun: Begun, change: Change) -> None:
    calls = await calling(begun, change)
    await begun.stored.pool.execute(SLOW_COMMIT.format(change.last))
    await calls.killed("SELECT pg_advisory_xact_lock(1)")
    assert 1 == await calls.effects()

    again = await calls.answer()
    assert change.statuses[1] == again[0], again
    assert 1 == await calls.effects()
