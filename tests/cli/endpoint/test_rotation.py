"""`hookseal endpoint rotate`, `rollback`, `end-overlap` and `rotation-status`, as an operator runs them."""

import asyncio
import base64
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.publish import Event, publish_raw
from hookseal.ground.ids import TenantId
from tests.cli.command import Ended
from tests.cli.installation import Begun
from tests.worker.waiting import eventually

GIVEN = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
MISSING = "01900000-0000-7000-8000-0000000000ff"
ASKS_FOR_OLDER_CLAIMS = """
SELECT pid, query_start FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%d.claimed_generation < $3%'
"""


async def added(begun: Begun) -> str:
    """Add an endpoint and return its id."""
    ended = await begun.run(
        *(
            "endpoint",
            "add",
            "--tenant",
            "acme",
            "--url",
            "https://receiver.example/hook",
            "--event-type",
            "*",
            "--json",
        )
    )
    endpoint: str = ended.json["endpoint_id"]
    return endpoint


async def run(begun: Begun, command: str, endpoint: str, *options: str, tenant: str = "acme") -> Ended:
    """Run one of these commands with `--json`."""
    return await begun.run("endpoint", command, "--tenant", tenant, "--endpoint", endpoint, *options, "--json")


def ref(endpoint: str, version: int) -> str:
    """Return the reference of a version of the endpoint's secret."""
    return f"db:acme:webhook-endpoint-{endpoint}:{version}"


@pytest.mark.req("SEC-09")
@pytest.mark.req("OPS-04", part="json")
async def test_the_json_has_the_documented_fields(begun: Begun) -> None:
    """The JSON is that of docs/commands.md, with the configured overlap, and a secret only with `--print-secret`."""
    endpoint = await added(begun)
    ended = await run(begun, "rotate", endpoint, "--rotation-id", "r1")
    assert (0, "") == (ended.code, ended.err)
    expires_at = ended.json["previous_secret_expires_at"]
    assert {
        "tenant_id": "acme",
        "endpoint_id": endpoint,
        "secret_ref": ref(endpoint, 2),
        "previous_secret_ref": ref(endpoint, 1),
        "previous_secret_expires_at": expires_at,
        "generation": 2,
        "rotation_id": "r1",
        "secret": None,
        "public_key": None,
        "older_claims": 0,
        "canary": None,
    } == ended.json
    again = await run(begun, "rotate", endpoint, "--rotation-id", "r1", "--print-secret")
    assert ended.json | {"secret": again.json["secret"]} == again.json
    assert again.json["secret"].startswith("whsec_")


@pytest.mark.req("SEC-10")
async def test_the_default_overlap_is_a_day(begun: Begun) -> None:
    """By default both secrets sign for 24 hours; the text has the rest in hours and minutes."""
    endpoint = await added(begun)
    await run(begun, "rotate", endpoint)
    left = (await run(begun, "rotation-status", endpoint)).json["seconds_left"]
    shown = await begun.run("endpoint", "rotation-status", "--tenant", "acme", "--endpoint", endpoint)

    assert 24 * 3600 - 60 < left <= 24 * 3600
    assert re.search(r"Z, (23 h 59 min|24 h 0 min) from now; lead previous$", shown.out, re.MULTILINE)


@pytest.mark.req("SEC-09")
async def test_a_repeat_writes_the_first_answers_secret(begun: Begun, tmp_path: Path) -> None:
    """A repeated rotation id with a file writes the secret of the first answer to it, for its owner only."""
    endpoint = await added(begun)
    first, second = tmp_path / "first", tmp_path / "second"
    await run(begun, "rotate", endpoint, "--rotation-id", "r1", "--secret-out", str(first))
    again = await run(begun, "rotate", endpoint, "--rotation-id", "r1", "--secret-out", str(second))

    assert (0, None) == (again.code, again.json["secret"])
    assert first.read_text().startswith("whsec_")
    assert first.read_text() == second.read_text()
    assert 0o600 == stat.S_IMODE(second.stat().st_mode)


@pytest.mark.req("SEC-09")
async def test_a_repeat_without_an_active_version_writes_no_file(begun: Begun, tmp_path: Path) -> None:
    """If the version is no longer active, a repeat writes no file and its secret is null."""
    endpoint = await added(begun)
    await run(begun, "rotate", endpoint, "--rotation-id", "r1")
    await run(begun, "rotate", endpoint, "--overlap", "0")
    again = await run(begun, "rotate", endpoint, "--rotation-id", "r1", "--secret-out", str(tmp_path / "s"))

    assert (0, None, False) == (again.code, again.json["secret"], (tmp_path / "s").exists())


@pytest.mark.req("SEC-10")
async def test_a_revocation_waits_for_older_claims(begun: Begun) -> None:
    """With `--overlap 0` the command waits for older claims; with `--no-wait` it reports their number."""
    endpoint = await added(begun)
    event = Event(tenant_id=TenantId("acme"), event_type="invoice.paid")
    [ring] = (await publish_raw(begun.stored.pool, event, b"{}")).deliveries
    ledger = PostgresLedger(begun.stored.pool, worker="w1", lease_seconds=60)
    claim = await ledger.claim(
        Ring(tenant_id=ring.tenant_id, endpoint_id=ring.endpoint_id, delivery_id=ring.delivery_id)
    )
    assert claim is not None
    at_once = await run(begun, "rotate", endpoint, "--overlap", "0", "--no-wait")
    assert (0, 1) == (at_once.code, at_once.json["older_claims"])

    waiting = asyncio.create_task(run(begun, "rotate", endpoint, "--overlap", "0"))
    asked: set[Any] = set()

    async def has_polled_again() -> bool:
        asked.update(await begun.stored.pool.fetch(ASKS_FOR_OLDER_CLAIMS))
        return len(asked) > 2

    await eventually(has_polled_again)
    assert not waiting.done()
    assert 3 == await begun.stored.pool.fetchval("SELECT generation FROM hookseal.endpoints")
    await ledger.release(claim, None)
    ended = await waiting
    assert (0, 0, 3) == (ended.code, ended.json["older_claims"], ended.json["generation"])


@pytest.mark.req("SEC-10")
async def test_a_second_rotation_in_an_overlap_is_a_conflict(begun: Begun) -> None:
    """A second rotation is a conflict (4); rollback and end-overlap work, and status reports the overlap."""
    endpoint = await added(begun)
    await run(begun, "rotate", endpoint, "--overlap", "3600")
    refused = await run(begun, "rotate", endpoint)
    assert (4, "conflict") == (refused.code, refused.json["error"]["code"])

    back = await run(begun, "rollback", endpoint, "--overlap", "60")
    assert (0, ref(endpoint, 1), ref(endpoint, 2), 3) == (
        back.code,
        back.json["secret_ref"],
        back.json["previous_secret_ref"],
        back.json["generation"],
    )
    status = await run(begun, "rotation-status", endpoint)
    assert (0, True, 3, 0, [2]) == (
        status.code,
        status.json["overlapping"],
        status.json["generation"],
        status.json["older_claims"],
        [one["version"] for one in status.json["rotations"]],
    )
    assert 0 < status.json["seconds_left"] <= 60
    over = await run(begun, "end-overlap", endpoint)
    assert (0, None, 4, 0) == (
        over.code,
        over.json["previous_secret_ref"],
        over.json["generation"],
        over.json["older_claims"],
    )
    assert (4, 4) == ((await run(begun, "end-overlap", endpoint)).code, (await run(begun, "rollback", endpoint)).code)


@pytest.mark.req("SEC-09")
async def test_a_given_secret_signs(begun: Begun, tmp_path: Path) -> None:
    """A secret from a file signs from then on; one of the wrong scheme (2) or that others may read (5) is refused."""
    endpoint = await added(begun)
    file = tmp_path / "secret"
    file.write_text("a text that is no whsec_ secret\n")
    file.chmod(0o600)
    refused = await run(begun, "rotate", endpoint, "--secret-file", str(file))
    assert (2, "secret") == (refused.code, refused.json["error"]["field"])
    taken = await run(
        begun,
        "rotate",
        endpoint,
        "--secret-file",
        str(file),
        "--scheme",
        "x-webhook",
        "--lead",
        "current",
        "--print-secret",
    )
    assert (0, "a text that is no whsec_ secret") == (taken.code, taken.json["secret"])
    file.chmod(0o644)
    assert 5 == (await run(begun, "rotate", endpoint, "--overlap", "0", "--secret-file", str(file))).code
    row = await begun.stored.pool.fetchrow("SELECT * FROM hookseal.endpoints")
    assert row is not None
    assert ("x-webhook", "standard", "current") == (row["scheme"], row["previous_scheme"], row["lead"])


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        (("--overlap", "604801"), 2, "overlap"),
        (("--overlap", "-1"), 2, "overlap"),
        (("--rotation-id", "no/slash"), 2, "rotation_id"),
        (("--lead", "both"), 2, "lead"),
        (("--scheme", "none"), 2, "scheme"),
        (("--expect-generation", "7"), 4, "expect_generation"),
    ],
)
async def test_a_refusal_names_its_option(begun: Begun, options: tuple[str, ...], code: int, field: str) -> None:
    """Each refusal names its option, and nothing is rotated."""
    endpoint = await added(begun)
    ended = await run(begun, "rotate", endpoint, *options)

    assert (code, field) == (ended.code, ended.json["error"]["field"])
    assert 1 == await begun.stored.pool.fetchval("SELECT generation FROM hookseal.endpoints")


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize("command", ["rotate", "rollback", "end-overlap", "rotation-status"])
async def test_an_absent_endpoint_is_not_found(begun: Begun, command: str) -> None:
    """An absent endpoint and one of another tenant exit 3 with the same answer."""
    endpoint = await added(begun)
    missing = await run(begun, command, MISSING)
    foreign = await run(begun, command, endpoint, tenant="globex")

    assert (3, 3) == (missing.code, foreign.code)
    assert missing.json == foreign.json


async def test_the_text_says_which_secrets_sign(begun: Begun) -> None:
    """The text says which secrets sign, until when, and how to show a secret that was not printed."""
    endpoint = await added(begun)
    arguments: tuple[Any, ...] = ("--tenant", "acme", "--endpoint", endpoint)
    rotated = await begun.run("endpoint", "rotate", *arguments)
    status = await begun.run("endpoint", "rotation-status", *arguments)

    assert (0, 0) == (rotated.code, status.code)
    assert f"current    {ref(endpoint, 2)}" in rotated.out
    reveal = f"  hookseal secret reveal --tenant acme --endpoint {endpoint} --secret-out FILE"
    assert f"secret     not shown. To get it, run\n{reveal}\n" in rotated.out
    named = f"hookseal endpoint rotation-status --tenant acme --endpoint {endpoint}"
    assert f"Once the receiver has switched: {named} --end-when-switched" in rotated.out.splitlines()
    assert f"previous      {ref(endpoint, 1)} (standard, hmac)" in status.out
    for again in (False, True):
        revoked = await begun.run("endpoint", "rotate", *arguments, "--overlap", "0", "--rotation-id", "r1")
        assert (f"This rotation was made before. What signs now: {named}" in revoked.out.splitlines(), False) == (
            again,
            "Once the receiver has switched" in revoked.out,
        )
