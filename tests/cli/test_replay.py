"""`hookseal replay` starts, shows, lists and cancels replay jobs; `endpoint enable --since` starts one."""

import asyncio

import pytest

from tests.cli.command import hookseal
from tests.cli.documented import documented
from tests.cli.installation import Begun
from tests.doubles.logbook import audited
from tests.operations.test_replay_jobs import dead_letters, ended, started

pytestmark = [pytest.mark.req("DEL-07", part="jobs"), pytest.mark.req("OPS-04", part="json")]


async def test_a_job_is_started_shown_and_cancelled(begun: Begun) -> None:
    """A dry run counts and changes nothing; a job is started, shown, listed and cancelled, and is audited."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await dead_letters(begun.stored, 3)
    what = ("replay", "start", "--tenant", "acme", "--endpoint", endpoint, "--since", "2026-01-01T00:00:00Z")
    would = {"would_replay": 3, "would_skip": {"endpoint_disabled": 0, "endpoint_deleted": 0}}
    assert would == (await begun.run(*what, "--dry-run", "--json")).json
    assert "would replay" in (await begun.run(*what, "--dry-run")).out
    assert {"items": [], "next_cursor": None} == (await begun.run("replay", "status", "--json")).json
    assert "`hookseal replay list` shows those that have ended\n" in (await begun.run("replay", "status")).out

    job = (await begun.run(*what, "--rate", "7/s", "--json")).json
    assert documented("replay start").keys() == job.keys()
    assert (3, 7, 3, "running", ["dead_letter", "failed", "cancelled"]) == (
        job["matched"], job["rate"], job["remaining"], job["state"], job["filter"]["states"],
    )  # fmt: skip
    assert job == (await begun.run("replay", "status", job["replay_id"], "--json")).json
    assert [job] == (await begun.run("replay", "list", "--tenant", "acme", "--json")).json["items"]
    assert job["replay_id"] in (await begun.run("replay", "status")).out
    assert [] == (await begun.run("replay", "list", "--state", "done", "--json")).json["items"]

    assert "cancelled" == (await begun.run("replay", "cancel", job["replay_id"], "--json")).json["state"]
    assert "skipped endpoint disabled  0\n" in (await begun.run("replay", "status", job["replay_id"])).out
    assert 4 == (await begun.run("replay", "cancel", job["replay_id"])).code
    actions = [row["action"] for row in await audited(begun.stored.pool)]
    assert ["replay.started", "replay.cancelled"] == actions[1:]


async def test_wait_reports_progress(begun: Begun) -> None:
    """With --wait the command returns when the job is done, and reports on standard error how far it is."""
    await begun.stored.endpoint()
    await dead_letters(begun.stored, 3)
    job = await started(begun.stored)
    waiting = asyncio.create_task(begun.run("replay", "status", job.replay_id, "--wait", "--json"))
    await ended(begun.stored, job)
    found = await waiting
    assert ("done", 3, "hookseal: replayed or skipped: 3 of 3\n") == (
        found.json["state"], found.json["replayed"], found.err,
    )  # fmt: skip
    unnamed = await begun.run("replay", "status", "--wait")
    assert (2, True) == (unnamed.code, "`hookseal replay list` shows their ids" in unnamed.err)


async def test_enable_with_since_replays_what_was_missed(begun: Begun) -> None:
    """With --since the endpoint is enabled and what it missed is replayed; without it no job is started."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await dead_letters(begun.stored, 2)
    enable = ("endpoint", "enable", "--tenant", "acme", "--endpoint", endpoint)
    await begun.run("endpoint", "disable", *enable[2:])
    shown = (await begun.run(*enable, "--since", "2026-01-01T00:00:00Z", "--json")).json
    assert (True, 2, endpoint) == (
        shown["changed"], shown["replay"]["matched"], shown["replay"]["filter"]["endpoint_id"],
    )  # fmt: skip
    assert (await begun.run(*enable, "--json")).json["replay"] is None
    for_a_person = (await begun.run(*enable, "--since", "2099-01-01T00:00:00Z")).out
    assert f"endpoint {endpoint} was enabled already: nothing was changed\nnothing is to be replayed\n" == for_a_person


async def test_the_help_says_what_is_taken_and_how_to_follow_it() -> None:
    """A newcomer learns which deliveries a job takes without options, and which command shows how far it is."""
    text = " ".join((await hookseal("replay", "start", "--help")).out.split())
    assert "ended without being delivered, also those that never had an attempt" in text
    assert "`hookseal replay status REPLAY_ID` shows how far it is" in text
