"""`hookseal endpoint add` stores an endpoint with a sealed secret, and outputs the secret once."""

import base64
import getpass
import shlex
import socket
import stat
from pathlib import Path

import pytest

from tests.cli.command import on_a_terminal
from tests.cli.documented import documented
from tests.cli.installation import Begun
from tests.doubles.stored import MASTER_KEY_TEXT

ADD = ("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/hook", "--event-type", "*")
OTHER = ("--url", "https://other.example/")
GIVEN = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
NOWHERE = {
    "DATABASE_URL": "postgresql://127.0.0.1:1/db",
    "SECRETS_PROVIDER": "db",
    "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
}


@pytest.mark.req("OPS-04", part="json")
async def test_the_json_has_the_documented_fields(begun: Begun) -> None:
    """The JSON has exactly the fields of docs/commands.md, and a secret only with `--print-secret`."""
    ended = await begun.run(*ADD, "--json")
    assert (0, "") == (ended.code, ended.err)
    endpoint = ended.json["endpoint_id"]
    assert {
        "tenant_id": "acme",
        "endpoint_id": endpoint,
        "secret_ref": f"db:acme:webhook-endpoint-{endpoint}:1",
        "previous_secret_ref": None,
        "previous_secret_expires_at": None,
        "generation": 1,
        "rotation_id": None,
        "secret": None,
        "public_key": None,
    } == ended.json
    assert documented("endpoint add").keys() == ended.json.keys()
    printed = await begun.run(*ADD, *OTHER, "--json", "--print-secret")
    assert printed.json["secret"].startswith("whsec_")
    assert 32 == len(base64.b64decode(printed.json["secret"].removeprefix("whsec_")))


async def test_the_row_has_every_given_value(begun: Begun) -> None:
    """The row has the given values and each subscription once; the secret is stored only sealed."""
    options = ("--event-type", "invoice.*", "--event-type", "*", "--name", "Büro 1", "--timeout-ms", "20000")
    ended = await begun.run(*ADD, *options, "--json", "--print-secret")
    row = await begun.stored.pool.fetchrow("SELECT * FROM hookseal.endpoints")
    assert row is not None
    assert (ended.json["endpoint_id"], "acme") == (str(row["id"]), row["tenant_id"])
    assert ("https://receiver.example/hook", ["*", "invoice.*"]) == (row["url"], row["event_types"])
    assert ("Büro 1", 20_000, None) == (row["name"], row["timeout_ms"], row["secret"])
    stored = await begun.stored.pool.fetchval("SELECT sealed FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    assert ended.json["secret"].encode() not in stored


async def test_the_text_omits_the_secret(begun: Begun) -> None:
    """Without a terminal the text omits the secret and names the command that reveals it."""
    ended = await begun.run(*ADD)
    assert (0, "") == (ended.code, ended.err)
    assert "whsec_" not in ended.out
    assert "secret    not shown\nThe secret is printed only on a terminal" in ended.out
    one = await begun.stored.pool.fetchval("SELECT id::text FROM hookseal.endpoints")
    assert f"\n  hookseal secret reveal --tenant acme --endpoint {one} --secret-out FILE\n" in ended.out
    printed = await begun.run(*ADD, *OTHER, "--print-secret")
    assert "\nsecret    whsec_" in printed.out


async def test_without_event_types_it_gets_every_event_and_says_so(begun: Begun) -> None:
    """With the command that chooses. An endpoint whose types were chosen needs no such words."""
    ended = await begun.run(*ADD[: ADD.index("--event-type")])
    one = await begun.stored.pool.fetchval("SELECT id::text FROM hookseal.endpoints")
    types = "SELECT event_types FROM hookseal.endpoints"
    assert (0, ["*"]) == (ended.code, await begun.stored.pool.fetchval(types))
    assert "gets      every event of acme, also of types to come. To choose, run\n" in ended.out
    command = f"endpoint update --tenant acme --endpoint {one} --event-type 'invoice.*'"
    assert f"\n  hookseal {command}\n" in ended.out
    assert 0 == (await begun.run(*shlex.split(command))).code
    assert ["invoice.*"] == await begun.stored.pool.fetchval(types)
    assert "gets" not in (await begun.run(*ADD, *OTHER)).out


async def test_a_terminal_shows_the_secret_once(begun: Begun) -> None:
    """On a terminal the secret is printed once; with `--json` or `--secret-out` it is not printed."""
    ended = await on_a_terminal(*ADD, **begun.settings)
    assert (0, 1) == (ended.code, ended.out.count("whsec_"))
    assert "Give the secret to the receiver" in ended.out
    as_json = await on_a_terminal(*ADD, *OTHER, "--json", **begun.settings)
    assert as_json.json["secret"] is None


async def test_the_secret_is_written_to_a_private_file(begun: Begun, tmp_path: Path) -> None:
    """The secret is written to a new file that only the user may read; without an endpoint there is no file."""
    path = tmp_path / "secret"
    ended = await begun.run(*ADD, "--secret-out", str(path))
    assert 0 == ended.code
    assert f"secret    in {path}\n" in ended.out
    assert "whsec_" not in ended.out
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    written = path.read_text()
    assert written.startswith("whsec_")
    assert written.endswith("=\n")

    refused = await begun.run(*ADD, "--secret-out", str(tmp_path / "none"), "--json")
    there = await begun.stored.pool.fetchval("SELECT id::text FROM hookseal.endpoints")
    message = f"the tenant already has an endpoint with this url, {there}: --allow-same-url permits several"
    assert (4, message, False) == (refused.code, refused.json["error"]["message"], (tmp_path / "none").exists())
    assert 0 == (await begun.run(*ADD, "--allow-same-url")).code


async def test_a_given_secret_signs(begun: Begun, tmp_path: Path) -> None:
    """The endpoint signs with the secret from a file or from standard input."""
    path = tmp_path / "given"
    path.write_text(GIVEN + "\n")
    path.chmod(0o600)
    from_file = await begun.run(*ADD, "--secret-file", str(path), "--json", "--print-secret")
    assert GIVEN == from_file.json["secret"]
    arguments = (*ADD, *OTHER, "--secret-file", "-", "--json", "--print-secret")
    from_stdin = await begun.fed(GIVEN.encode() + b"\n", *arguments)
    assert GIVEN == from_stdin.json["secret"]


@pytest.mark.req("OPS-10")
async def test_the_audit_row_names_the_actor(begun: Begun) -> None:
    """The audit row names the database role, the user and the machine."""
    await begun.run(*ADD)
    role = await begun.stored.pool.fetchval("SELECT session_user")
    actor = await begun.stored.pool.fetchval("SELECT actor FROM hookseal.audit_log WHERE tenant_id = 'acme'")
    assert f"{role}/{getpass.getuser()}@{socket.gethostname()}" == actor
