"""`hookseal key stage`, `promote`, `rewrap`, `retire`, `destroy`, `compromise`, `versions`, as operators run them."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from hookseal.admin.results.keys import Compromise, MovedKey, RewrappedKey
from hookseal.cli import key
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.keyring import MasterKey
from tests.cli.command import Ended, on_a_terminal
from tests.cli.installation import Begun
from tests.doubles.logbook import audited
from tests.doubles.master_keys import OLD
from tests.doubles.stored import MASTER_KEY_TEXT

pytestmark = [pytest.mark.req("SEC-05"), pytest.mark.req("SEC-04")]

NEXT_TEXT = base64.b64encode(hashlib.sha256(b"next").digest()).decode()
NEXT = MasterKey.parse(NEXT_TEXT, variable="SECRETS_MASTER_KEY_NEXT")
SETTLED = {"SECRETS_MASTER_KEY": MASTER_KEY_TEXT}
WITH_NEXT = SETTLED | {"SECRETS_MASTER_KEY_NEXT": NEXT_TEXT}
SWAPPED = {"SECRETS_MASTER_KEY": NEXT_TEXT, "SECRETS_MASTER_KEY_PREVIOUS": MASTER_KEY_TEXT}
DONE = {"SECRETS_MASTER_KEY": NEXT_TEXT}
WORKER = """
INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, beaten_at)
VALUES ($1, '0', 25, 45, $2, now() - make_interval(secs => $3))
"""
NEVER = {"promoted_at": None, "drained_at": None, "compromised_at": None, "retired_at": None, "destroyed_at": None}
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
NOWHERE = "postgresql://127.0.0.1:1/db"
COMMANDS = ("stage", "promote", "rewrap", "retire", "destroy", "compromise", "versions")


class Keys:
    """Runs `hookseal key` on one installation; no output ever has a key."""

    def __init__(self, begun: Begun) -> None:
        self.begun = begun

    async def run(self, *arguments: str, by: Mapping[str, str] = SETTLED, **changes: str) -> Ended:
        """Run `hookseal key` with these keys to its end."""
        without = {name: value for name, value in self.begun.settings.items() if not name.startswith("SECRETS_MASTER")}
        ended = await self.begun.in_turn.run(("key", *arguments), without | dict(by) | changes, b"")
        for text in (MASTER_KEY_TEXT, NEXT_TEXT):
            for spelled in (text, text.rstrip("="), base64.b64decode(text).hex()):
                assert spelled not in ended.out + ended.err
        return ended

    async def done(self, *arguments: str, by: Mapping[str, str] = SETTLED, **changes: str) -> dict[str, Any]:
        """Run it, require success, and return its JSON."""
        ended = await self.run(*arguments, "--json", by=by, **changes)
        assert (0, arguments) == (ended.code, arguments), ended.out + ended.err
        return ended.json

    async def promoted(self) -> None:
        """Stage and promote the next key."""
        await self.done("stage", by=WITH_NEXT)
        await self.done("promote", NEXT.key_id, by=WITH_NEXT)

    async def worker(self, name: str, *keys: MasterKey, seconds_ago: float = 0.0) -> None:
        """Record a heartbeat of a worker with these keys, that many seconds ago."""
        await self.begun.stored.pool.execute(WORKER, name, [key.key_id for key in keys], seconds_ago)


@pytest.fixture
async def keys(begun: Begun) -> Keys:
    """An installation with two endpoints, one of them with header values."""
    await begun.stored.endpoint()
    new = NewEndpoint(tenant_id=TenantId("bmce"), url="https://receiver.example/hook", event_types=("*",))
    await begun.stored.add(new, headers={"x-token": b"bearer"})
    return Keys(begun)


async def test_each_step_returns_one_object_and_may_be_repeated(keys: Keys) -> None:
    """Each step exits 0 with one JSON object of its form, and 0 again when it is repeated."""
    old, new = OLD.key_id, NEXT.key_id
    moved = NEVER | {"key_id": new, "state": "staged", "was": None}
    assert moved == await keys.done("stage", by=WITH_NEXT)
    assert moved | {"was": "staged"} == await keys.done("stage", by=WITH_NEXT)

    promoted = await keys.done("promote", new, by=WITH_NEXT)
    assert promoted["promoted_at"].endswith("Z")
    assert moved | {"was": "staged", "state": "active", "promoted_at": promoted["promoted_at"]} == promoted
    assert promoted | {"was": "active"} == await keys.done("promote", new, by=SWAPPED)

    first = await keys.run("rewrap", old, "--json", by=SWAPPED)
    assert (0, {"key_id": old, "to": new, "moved": 5, "left": 0, "failed": []}) == (first.code, first.json)
    assert "hookseal: records re-wrapped: 5 of 5\n" == first.err  # once, however long it took
    again = await keys.run("rewrap", old, "--json", by=SWAPPED)
    nothing: dict[str, Any] = {"key_id": old, "to": None, "moved": 0, "left": 0, "failed": []}
    assert (0, "", nothing) == (again.code, again.err, again.json)

    retired = await keys.done("retire", old, by=SWAPPED)
    assert ("retired", "decrypt_only") == (retired["state"], retired["was"])
    assert all(retired[name].endswith("Z") for name in ("promoted_at", "drained_at", "retired_at"))
    assert "retired" == (await keys.done("retire", old, by=SWAPPED))["was"]
    ended = [await keys.done("destroy", old, by=DONE) for _ in range(2)]
    assert [("destroyed", "retired"), ("destroyed", "destroyed")] == [(each["state"], each["was"]) for each in ended]

    refused = await keys.run("rewrap", old, "--json", by=SWAPPED)
    assert (78, "configuration") == (refused.code, refused.json["error"]["code"])
    assert 0 == (await keys.run("status", by=SWAPPED)).code  # `status` is never refused
    reported = [row["action"] for row in await audited(keys.begun.stored.pool, "_system")]
    assert ["key.staged", "key.promoted", "key.rewrapped", "key.drained", "key.retired", "key.destroyed"] == reported


async def test_the_text_of_each_step_says_what_comes_next(keys: Keys) -> None:
    """Each step says what comes next, and the last one which backups still need the older key."""
    old, new = OLD.key_id, NEXT.key_id
    staged = await keys.run("stage", by=WITH_NEXT)
    assert (
        f"master key {new} is staged: restart every worker with SECRETS_MASTER_KEY_NEXT, then run\n"
        f"  hookseal key promote {new}\n"
    ) == staged.out
    promoted = await keys.run("promote", new, by=WITH_NEXT)
    assert "Now set SECRETS_MASTER_KEY to it" in promoted.out
    assert "SECRETS_MASTER_KEY_PREVIOUS to the older one" in promoted.out
    assert promoted.out.endswith(f"restart every worker, and run\n  hookseal key rewrap {old}\n")
    again = await keys.run("promote", new, by=WITH_NEXT)
    assert again.out.startswith(
        f"master key {new} was active already: nothing was changed. If you have not done so yet, set "
    )
    assert again.out.endswith(f"run\n  hookseal key rewrap {old}\n")
    rewrapped = await keys.run("rewrap", old, by=SWAPPED)
    assert f"records re-wrapped: 5; none is under {old} any more: run `hookseal key retire {old}`\n" == rewrapped.out
    life = await keys.begun.stored.pool.fetchrow("SELECT * FROM hookseal.secret_keys WHERE key_id = $1", old)
    assert life is not None
    backups = "backups made between {} and {} can be read only with this key".format(
        *(f"{life[name].isoformat(timespec='milliseconds')[:23]}Z" for name in ("promoted_at", "drained_at"))
    )
    retired = await keys.run("retire", old, by=SWAPPED)
    assert f"master key {old} is retired: it decrypts nothing any more\n{backups}" in retired.out
    destroyed = await keys.run("destroy", old, by=DONE)
    assert f"master key {old} is destroyed: a process that has it will not start\n{backups}" in destroyed.out
    assert [0] * 5 == [each.code for each in (staged, promoted, rewrapped, retired, destroyed)]


@pytest.mark.req("SEC-04", part="key-commands")
async def test_status_shows_state_records_and_holders(keys: Keys) -> None:
    """Each key has its state, its records, and whether this process and how many live workers hold it."""
    await keys.promoted()
    await keys.worker("w-both", OLD, NEXT)
    await keys.worker("w-new", NEXT)
    await keys.worker("w-lost", OLD, seconds_ago=3_600)
    await keys.begun.stored.pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ('acme', gen_random_uuid(), 'https://old.example/', '{*}', 'plain')"
    )
    shown = await keys.done("status", by=DONE)
    assert 1 == shown["plaintext_endpoints"]
    assert [
        (OLD.key_id, "decrypt_only", False, 5, 1),
        (NEXT.key_id, "active", True, 0, 2),
    ] == [tuple(item[name] for name in ("key_id", "state", "held", "records", "workers")) for item in shown["items"]]
    for item in shown["items"]:
        assert set(NEVER) < set(item)
    text = (await keys.run("status", by=DONE)).out.splitlines()
    assert [
        "key id            state         held  records  workers",
        f"{OLD.key_id}  decrypt_only  no    5        1",
        f"{NEXT.key_id}  active        yes   0        2",
        "endpoints with a plaintext secret: 1 (run `hookseal migrate-secrets`)",
    ] == text


def test_the_text_of_rare_results() -> None:
    """It says which backups need the older key, that a key was active already, and that records are stale."""
    moved = MovedKey(key_id="a", state="retired", was="staged", older=(), **dict.fromkeys(NEVER))
    assert "it never sealed anything, so no backup needs it" == key._backups(moved)
    assert key._backups(replace(moved, promoted_at=FIRST)).startswith("backups made since 2026-01-01T00:00:00.000Z can")
    assert "master key a was active already: nothing was changed. No other key has records to re-wrap." == (
        key._promoted(replace(moved, was="active"))
    )
    stale = RewrappedKey(key_id="a", to=None, moved=0, left=5, failed=())
    assert "5 stale records appeared under a after a re-wrap had left none: run `hookseal restore check` (" in (
        key._rewrapped_text(stale)
    )
    leaked = Compromise(
        key_id="a", dry_run=False, overlap_seconds=9, versions=1, rotated=0, overlaps_ended=0, previous_still_signing=1,
        integrity_rotated=False, header_values=(), client_keys=(), failed=(),
    )  # fmt: skip
    assert key._compromise_text(leaked).endswith(" sign until their overlap ends: 1 (--overlap 0 ends it now)")


async def test_every_failure_has_its_exit_code(keys: Keys) -> None:
    """Each kind of failure has its exit code in each command."""
    for command in COMMANDS:
        named = () if command == "stage" else ("0123456789abcdef",)
        unknown = await keys.run(command, *named, "--json")
        assert ((3, "not_found") if named else (5, "refused")) == (unknown.code, unknown.json["error"]["code"])
        away = await keys.run(command, *named, "--json", by=WITH_NEXT, DATABASE_URL=NOWHERE)
        dev = await keys.run(command, *named, "--json", by={}, SECRETS_PROVIDER="dev")
        twice = await keys.run(command, *named, "--json", by=SETTLED | {"SECRETS_MASTER_KEY_NEXT": MASTER_KEY_TEXT})
        assert (69, 5, 78) == (away.code, dev.code, twice.code), command
    for command in ("rewrap", "retire", "compromise", "destroy"):
        active = await keys.run(command, OLD.key_id, "--json")
        assert (4, "conflict") == (active.code, active.json["error"]["code"]), command


async def test_an_altered_record_is_not_re_wrapped(keys: Keys) -> None:
    """An altered record is not re-wrapped and is named in the answer and on stderr (1); the others are re-wrapped."""
    await keys.promoted()
    await keys.begun.stored.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 60, 255 - get_byte(sealed, 60))"
        " WHERE tenant_id = 'acme'"
    )
    before = await keys.begun.stored.pool.fetch("SELECT * FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    ended = await keys.run("rewrap", OLD.key_id, "--json", by=SWAPPED)

    name = before[0]["name"]
    assert (1, 4, 1) == (ended.code, ended.json["moved"], ended.json["left"])
    assert [{"tenant_id": "acme", "name": name, "version": 1, "code": "context_mismatch"}] == ended.json["failed"]
    assert (
        f"hookseal: acme/{name}, version 1: it does not open with the key in its row (context_mismatch)\n" in ended.err
    )
    assert before == await keys.begun.stored.pool.fetch(
        "SELECT * FROM hookseal.secret_records WHERE tenant_id = 'acme'"
    )
    text = await keys.run("rewrap", OLD.key_id, by=SWAPPED)
    assert f"records re-wrapped: 0; left under {OLD.key_id}: 1 (runbook, HooksealSecretRefused)\n" == text.out


@pytest.mark.req("SEC-22")
async def test_compromise_reports_what_is_replaced(keys: Keys) -> None:
    """Dry run, run and repeat report what is replaced, and the header values that owners must replace (1)."""
    pool = keys.begun.stored.pool
    await keys.promoted()
    names = {
        row["tenant_id"]: f"db:{row['tenant_id']}:{row['name']}:1"
        for row in await pool.fetch("SELECT tenant_id, name FROM hookseal.secret_records WHERE name LIKE 'webhook%'")
    }
    headers = await pool.fetchrow("SELECT id::text, headers_ref FROM hookseal.endpoints WHERE tenant_id = 'bmce'")
    assert headers is not None
    shape = {
        "key_id": OLD.key_id,
        "dry_run": True,
        "overlap_seconds": 86_400,
        "versions": 5,
        "rotated": 2,
        "overlaps_ended": 0,
        "previous_still_signing": 0,
        "integrity_rotated": True,
        "header_values": [{"tenant_id": "bmce", "endpoint_id": headers["id"], "ref": headers["headers_ref"]}],
        "client_keys": [],
        "failed": [],
    }
    dry_run = await keys.run("compromise", OLD.key_id, "--dry-run", "--json", by=SWAPPED)
    assert (1, shape) == (dry_run.code, dry_run.json)
    assert "hookseal: versions examined: 5 of 5" == dry_run.err.splitlines()[-1]
    assert (
        "secrets would be rotated: 2\nthe integrity key would be rotated\n"
        in (await keys.run("compromise", OLD.key_id, "--dry-run", by=SWAPPED)).out
    )
    done = await keys.run("compromise", OLD.key_id, "--overlap", "0", "--json", by=SWAPPED)
    assert (1, shape | {"dry_run": False, "overlap_seconds": 0}) == (done.code, done.json)
    assert 2 == await pool.fetchval("SELECT count(*) FROM hookseal.endpoints WHERE generation = 2")
    again = await keys.run("compromise", OLD.key_id, by=SWAPPED)
    assert (1, True) == (again.code, "secrets rotated: 0\nheader values that their owners must replace: 1" in again.out)
    listed = await keys.done("versions", OLD.key_id, by=SWAPPED)
    used = {item["ref"]: item["used_as"] for item in listed["items"] if item["purpose"] == "webhook-signing"}
    assert dict.fromkeys(names.values()) == used
    await keys.done("rewrap", OLD.key_id, by=SWAPPED)
    refused = await keys.run("promote", OLD.key_id, "--json", by=SWAPPED)
    assert (4, True) == (refused.code, "is compromised: it never seals again" in refused.json["error"]["message"])


@pytest.mark.req("SEC-22")
async def test_compromise_names_what_it_could_not_replace(keys: Keys) -> None:
    """An altered endpoint is named with the reason (1); once it is repaired the same command succeeds (0)."""
    pool = keys.begun.stored.pool
    await pool.execute("DELETE FROM hookseal.endpoints WHERE tenant_id = 'bmce'")
    await keys.promoted()
    url = await pool.fetchval("SELECT url FROM hookseal.endpoints")
    await pool.execute("UPDATE hookseal.endpoints SET url = 'https://evil.example/'")
    ended = await keys.run("compromise", OLD.key_id, "--json", by=SWAPPED)
    [failed] = ended.json["failed"]
    assert (1, 0, "secret_tampered") == (ended.code, ended.json["rotated"], failed["code"])
    assert f"hookseal: {failed['ref']}: {failed['message']}\n" in ended.err
    assert (
        "failed: 1; correct the cause and run the command again"
        in (await keys.run("compromise", OLD.key_id, by=SWAPPED)).out
    )
    await pool.execute("UPDATE hookseal.endpoints SET url = $1", url)
    assert 1 == (await keys.done("compromise", OLD.key_id, by=SWAPPED))["rotated"]
    bad = await keys.run("compromise", OLD.key_id, "--overlap", "604801", "--json", by=SWAPPED)
    assert (2, "overlap") == (bad.code, bad.json["error"]["field"])


@pytest.mark.req("SEC-22")
async def test_the_pages_list_each_version_once(keys: Keys) -> None:
    """The pages list each version once; an empty list says so; an invalid cursor is malformed."""
    items, cursor = [], None
    while True:
        more: list[str] = [] if cursor is None else ["--cursor", cursor]
        shown = await keys.done("versions", OLD.key_id, "--limit", "2", *more)
        assert len(shown["items"]) <= 2
        items += shown["items"]
        if (cursor := shown["next_cursor"]) is None:
            break
    assert 5 == len({item["ref"] for item in items}) == len(items)
    assert {"tenant_id", "ref", "purpose", "state", "endpoint_id", "used_as"} == set(items[0])
    assert {"current", "headers", None} == {item["used_as"] for item in items}
    text = (await keys.run("versions", OLD.key_id, "--limit", "2")).out
    assert ("ref", "more: --cursor") == (text[:3], text.splitlines()[-1][:14])
    await keys.done("stage", by=WITH_NEXT)
    assert "no secret was ever sealed under this key\n" == (await keys.run("versions", NEXT.key_id)).out
    for wrong in (["--cursor", "%%%"], ["--limit", "0"], ["--limit", "1001"]):
        assert 2 == (await keys.run("versions", OLD.key_id, *wrong)).code


async def test_a_terminal_shows_a_progress_bar(keys: Keys) -> None:
    """On a terminal progress is a bar, and standard output still has the one object."""
    await keys.promoted()
    settings = keys.begun.settings | SWAPPED
    ended = await on_a_terminal("key", "rewrap", OLD.key_id, "--json", stream="stderr", **settings, TERM="xterm")
    assert (0, 5) == (ended.code, ended.json["moved"])
    assert "records re-wrapped" in ended.err
    assert "5/5" in ended.err
