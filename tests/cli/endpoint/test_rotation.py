"""`hookseal endpoint rotate`, `rollback` and `end-overlap`: options, JSON, text, files, and exit codes."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest

from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.publish import NewEvent, publish_raw
from hookseal.ground.ids import EndpointId, TenantId
from tests.cli.command import Ended
from tests.cli.installation import Begun
from tests.cli.lost_commit_proxy import losing_the_commit
from tests.doubles.logbook import audited

ADD = (
    *("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/hook", "--event-type", "*"),
    "--json",
)
ASKS_FOR_OLDER_CLAIMS = """
SELECT pid, query_start FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%d.claimed_generation < $3%'
"""


async def added(begun: Begun) -> str:
    """Add an endpoint and return its id."""
    endpoint: str = (await begun.run(*ADD)).json["endpoint_id"]
    return endpoint


async def run(begun: Begun, command: str, endpoint: str, *options: str, tenant: str = "acme") -> Ended:
    """Run one of these commands with `--json`."""
    return await begun.run("endpoint", command, "--tenant", tenant, "--endpoint", endpoint, *options, "--json")


def ref(endpoint: str, version: int) -> str:
    """Return the reference of a version of the endpoint's secret."""
    return f"db:acme:webhook-endpoint-{endpoint}:{version}"


async def generation(begun: Begun) -> int:
    """Return the generation of the only endpoint."""
    found: int = await begun.stored.pool.fetchval("SELECT generation FROM hookseal.endpoints")
    return found


@pytest.mark.req("SEC-09")
@pytest.mark.req("OPS-04", part="json")
async def test_the_json_has_the_documented_fields(begun: Begun) -> None:
    """The JSON is that of docs/commands.md, in this order, and has a secret only with `--print-secret`."""
    endpoint = await added(begun)
    ended = await run(begun, "rotate", endpoint, "--rotation-id", "r1")
    assert (0, "") == (ended.code, ended.err)
    rotated = {
        "tenant_id": "acme",
        "endpoint_id": endpoint,
        "secret_ref": ref(endpoint, 2),
        "previous_secret_ref": ref(endpoint, 1),
        "previous_secret_expires_at": ended.json["previous_secret_expires_at"],
        "generation": 2,
        "rotation_id": "r1",
        "secret": None,
        "public_key": None,
        "older_claims": 0,
        "canary": None,
    }
    assert list(rotated.items()) == list(ended.json.items())
    again = await run(begun, "rotate", endpoint, "--rotation-id", "r1", "--print-secret")
    assert rotated | {"secret": again.json["secret"]} == again.json
    assert again.json["secret"].startswith("whsec_")

    back = await run(begun, "rollback", endpoint, "--overlap", "60", "--expect-generation", "2")
    moved = rotated | {"secret_ref": ref(endpoint, 1), "previous_secret_ref": ref(endpoint, 2), "generation": 3}
    del moved["canary"]
    moved |= {"previous_secret_expires_at": back.json["previous_secret_expires_at"], "rotation_id": None}
    assert (0, list(moved.items())) == (back.code, list(back.json.items()))
    over = await run(begun, "end-overlap", endpoint, "--expect-generation", "3")
    moved |= {"previous_secret_ref": None, "previous_secret_expires_at": None, "generation": 4}
    assert (0, list(moved.items())) == (over.code, list(over.json.items()))


@pytest.mark.req("SEC-10")
async def test_no_wait_prints_the_older_claims(begun: Begun) -> None:
    """With `--no-wait`, a revocation and a forced rotation print how many older claims are left."""
    endpoint = await added(begun)
    [ring] = (
        await publish_raw(begun.stored.pool, NewEvent(tenant_id=TenantId("acme"), event_type="a"), b"{}")
    ).deliveries
    assert await PostgresLedger(begun.stored.pool, worker="w1", lease_seconds=60).claim(ring) is not None
    for options in (("--overlap", "60"), ("--overlap", "60", "--force", "--no-wait"), ("--overlap", "0", "--no-wait")):
        ended = await run(begun, "rotate", endpoint, *options)
        assert (0, "--no-wait" in options) == (ended.code, ended.json["older_claims"] == 1)


@pytest.mark.req("SEC-09")
async def test_a_file_gets_the_secret_of_the_answer(begun: Begun, tmp_path: Path) -> None:
    """A new file, for its owner only, gets the secret; a repeat gives the first one again while it is active."""
    endpoint = await added(begun)
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    await run(begun, "rotate", endpoint, "--rotation-id", "r1", "--secret-out", str(first))
    again = await run(begun, "rotate", endpoint, "--rotation-id", "r1", "--secret-out", str(second))
    assert (0, None, 0o600) == (again.code, again.json["secret"], stat.S_IMODE(second.stat().st_mode))
    assert first.read_text().startswith("whsec_")
    assert first.read_text() == second.read_text()

    await run(begun, "rotate", endpoint, "--overlap", "0")
    late = await run(begun, "rotate", endpoint, "--rotation-id", "r1", "--secret-out", str(third))
    assert (0, None, False) == (late.code, late.json["secret"], third.exists())


@pytest.mark.req("SEC-09")
async def test_a_given_secret_signs(begun: Begun, tmp_path: Path) -> None:
    """A secret from a file signs from then on; one that others may read is refused (5)."""
    endpoint = await added(begun)
    file = tmp_path / "secret"
    file.write_text("a text that is no whsec_ secret\n")
    file.chmod(0o600)
    how = ("--scheme", "x-webhook", "--lead", "current", "--print-secret")
    taken = await run(begun, "rotate", endpoint, "--secret-file", str(file), *how)
    assert (0, "a text that is no whsec_ secret") == (taken.code, taken.json["secret"])
    file.chmod(0o644)
    assert 5 == (await run(begun, "rotate", endpoint, "--overlap", "0", "--secret-file", str(file))).code
    row = await begun.stored.pool.fetchrow("SELECT * FROM hookseal.endpoints")
    assert row is not None
    assert ("x-webhook", "standard", "current") == (row["scheme"], row["previous_scheme"], row["lead"])


@pytest.mark.req("DEL-04", part="standard-ed25519")
async def test_a_key_pair_prints_its_public_key_only(begun: Begun, tmp_path: Path) -> None:
    """File, JSON and text have the public key of ed25519, also of a repeat; the private key is in none of them."""
    endpoint, file, again = await added(begun), tmp_path / "key", tmp_path / "again"
    options = ("--algorithm", "ed25519", "--rotation-id", "r1", "--print-secret", "--secret-out")
    ended = await run(begun, "rotate", endpoint, *options, str(file))
    repeated = await begun.run("endpoint", "rotate", "--tenant", "acme", "--endpoint", endpoint, *options, str(again))

    key = ended.json["public_key"]
    assert (0, None, 0) == (ended.code, ended.json["secret"], repeated.code)
    assert key.startswith("whpk_")
    assert (f"{key}\n", f"{key}\n", 0o600) == (file.read_text(), again.read_text(), stat.S_IMODE(file.stat().st_mode))
    assert f"public key {key}\n           also in {again}\nGive the public key to the receiver." in repeated.out
    assert "whsk_" not in ended.out + ended.err + repeated.out + repeated.err


async def test_the_text_says_which_secrets_sign(begun: Begun) -> None:
    """The text says which secrets sign, until when, what to do next, and how to show a secret that was not printed."""
    endpoint = await added(begun)
    of: tuple[Any, ...] = ("--tenant", "acme", "--endpoint", endpoint)
    named = f"hookseal endpoint rotation-status --tenant acme --endpoint {endpoint}"
    ending = f"hookseal endpoint end-overlap --tenant acme --endpoint {endpoint} --when-switched"
    rotated = await begun.run("endpoint", "rotate", *of)
    refused = await begun.run("endpoint", "rotate", *of)
    status = await begun.run("endpoint", "rotation-status", *of)

    assert (0, 4, 0) == (rotated.code, refused.code, status.code)
    assert f"current    {ref(endpoint, 2)}" in rotated.out
    reveal = f"  hookseal secret reveal --tenant acme --endpoint {endpoint} --secret-out FILE"
    assert f"secret     not shown. To get it, run\n{reveal}\n" in rotated.out
    assert f"Once the receiver has switched, run\n  {ending}" in rotated.out
    assert (
        "hookseal: an overlap is running, and its previous secret would retire at once: wait for its end, end it with "
        f"`{ending}`, or use --force; if the secret leaked, use --overlap 0\n"
    ) == refused.err
    assert f"previous      {ref(endpoint, 1)} (standard, hmac)" in status.out
    assert re.search(r"Z, (23 h 59 min|24 h 0 min) from now$", status.out, re.MULTILINE)
    for again in (False, True):
        revoked = await begun.run("endpoint", "rotate", *of, "--overlap", "0", "--rotation-id", "r1")
        repeated = f"This rotation was made before. To see what signs now, run\n  {named}"
        assert (repeated in revoked.out, False) == (
            again,
            "Once the receiver has switched" in revoked.out,
        )


@pytest.mark.req("SEC-09")
async def test_a_lost_commit_keeps_the_secret_file(begun: Begun, tmp_path: Path) -> None:
    """The command exits 69 and says how to find out the result; the file stays, and its secret is in use."""
    endpoint = await added(begun)
    first, second = tmp_path / "first", tmp_path / "second"
    of = ("endpoint", "rotate", "--tenant", "acme", "--endpoint", endpoint)
    async with losing_the_commit(begun.settings["DATABASE_URL"]) as url:
        ended = await begun.run(*of, "--secret-out", str(first), "--json", DATABASE_URL=url)

    assert (69, "in_doubt") == (ended.code, ended.json["error"]["code"])
    rotation = re.search(r"done all the same; run it again with --rotation-id (\S+?),", ended.json["error"]["message"])
    assert rotation is not None
    assert 2 == await generation(begun)
    again = await begun.run(*of, "--rotation-id", rotation[1], "--secret-out", str(second), "--json")
    assert (0, 2) == (again.code, again.json["generation"])
    assert first.read_text() == second.read_text()


async def test_an_endpoint_of_a_later_version_needs_a_scheme(begun: Begun) -> None:
    """Its own scheme is none that this version could sign in: the error says what to do, and nothing changes."""
    endpoint = EndpointId(await added(begun))
    await begun.stored.set_scheme(endpoint, "later")
    of = ("--tenant", "acme", "--endpoint", endpoint)
    for words in (("endpoint", "rotate", *of, "--no-wait"), ("secret", "reveal", *of), ("endpoint", "test", *of)):
        refused = await begun.run(*words, "--print-secret") if words[1] != "test" else await begun.run(*words)
        assert 5 == refused.code, words
        assert "this version does not sign in the scheme" in refused.err
        assert "`--overlap 0`, and give a `--scheme` and an `--algorithm` of this one" in refused.err
    assert 2 == await generation(begun)
    assert "secret.revealed" not in {entry["action"] for entry in await audited(begun.stored.pool)}

    rotated = await run(begun, "rotate", endpoint, "--overlap", "0", "--scheme", "standard")
    assert (0, 3) == (rotated.code, rotated.json["generation"])
