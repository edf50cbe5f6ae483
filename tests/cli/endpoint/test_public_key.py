"""Endpoints that sign with ed25519, on the command line: only the public key is ever shown."""

from pathlib import Path

import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from tests.cli.command import Ended, hookseal, on_a_terminal
from tests.cli.installation import Begun, options_of
from tests.doubles.stored import MASTER_KEY_TEXT

pytestmark = pytest.mark.req("DEL-04", part="standard-ed25519")

URL = "https://receiver.example/hook"
ADD = ("endpoint", "add", "--tenant", "acme", "--event-type", "*", "--algorithm", "ed25519")
UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
NOWHERE = {
    "DATABASE_URL": "postgresql://127.0.0.1:1/db",
    "SECRETS_PROVIDER": "db",
    "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
}


async def ed25519(begun: Begun) -> tuple[str, str | None]:
    """Add an endpoint that signs with ed25519; return its id and its public key."""
    new = NewEndpoint(tenant_id=TenantId("acme"), url=URL, event_types=("*",), algorithm=Algorithm.ED25519)
    added = await begun.stored.add(new)
    return added.pointer.endpoint_id, added.public_key


async def public_key(begun: Begun, endpoint: str, tenant: str = "acme") -> Ended:
    """Ask for the public key of an endpoint."""
    return await begun.run("endpoint", "public-key", *options_of(endpoint, tenant), "--json")


@pytest.mark.req("OPS-04", part="json")
async def test_an_added_endpoint_shows_the_public_key_only(begun: Begun, tmp_path: Path) -> None:
    """The answer and the file have the public key and never the private key, even with `--print-secret`."""
    path = tmp_path / "key"
    ended = await begun.run(*ADD, "--url", URL, "--secret-out", str(path), "--print-secret", "--json")
    assert (0, "", None) == (ended.code, ended.err, ended.json["secret"])
    key, one = ended.json["public_key"], ended.json["endpoint_id"]
    assert (f"{key}\n", True) == (path.read_text(), key.startswith("whpk_"))
    found = (await public_key(begun, one)).json
    assert {
        "tenant_id": "acme",
        "endpoint_id": one,
        "generation": 1,
        "secret_ref": f"db:acme:webhook-endpoint-{one}:1",
        "public_key": key,
        "previous_secret_ref": None,
        "previous_secret_expires_at": None,
        "previous_public_key": None,
    } == found
    details = await begun.run("endpoint", "show", *options_of(one), "--json")
    assert "ed25519" == details.json["algorithm"]
    listed = await begun.run("endpoint", "list", "--json")
    assert ["ed25519"] == [item["algorithm"] for item in listed.json["items"]]


async def test_the_text_shows_the_public_key(begun: Begun, tmp_path: Path) -> None:
    """The text shows the public key, on a terminal or not, and how to show it again; never the private key."""
    for url, run in ((URL, begun.run), (f"{URL}/2", lambda *arguments: on_a_terminal(*arguments, **begun.settings))):
        ended = await run(*ADD, "--url", url)
        assert 0 == ended.code
        assert "\npublic    whpk_" in ended.out
        assert "hookseal endpoint public-key --tenant acme --endpoint " in ended.out
        assert "whsk_" not in ended.out + ended.err
        assert "also in" not in ended.out
    kept = await begun.run(*ADD, "--url", f"{URL}/3", "--secret-out", str(path := tmp_path / "key"))
    assert f"public    {path.read_text()}          also in {path}\n" in kept.out


async def test_a_given_key_pair_is_accepted(begun: Begun, tmp_path: Path) -> None:
    """A `whsk_` is accepted from a private file; an HMAC secret and a `whpk_` are refused."""
    pair = generate_signing_secret(Algorithm.ED25519)
    path = tmp_path / "pair"
    path.write_bytes(pair.reveal() + b"\n")
    path.chmod(0o600)
    ended = await begun.run(*ADD, "--url", URL, "--secret-file", str(path), "--json")
    assert public_key_of(pair) == ended.json["public_key"]
    for wrong in (generate_signing_secret().reveal(), str(public_key_of(pair)).encode()):
        refused = await begun.fed(wrong, *ADD, "--url", f"{URL}/2", "--secret-file", "-", "--json")
        assert (2, "secret") == (refused.code, refused.json["error"]["field"])
        assert wrong.decode() not in refused.out


async def test_an_overlap_shows_both_public_keys(begun: Begun) -> None:
    """While both secrets sign, the public key of each ed25519 secret is shown; afterwards only the current one."""
    one, first = await ed25519(begun)
    rotated = await begun.run("endpoint", "rotate", *options_of(one), "--overlap", "600", "--json")
    found = (await public_key(begun, one)).json
    assert (rotated.json["public_key"], first) == (found["public_key"], found["previous_public_key"])
    assert (2, rotated.json["previous_secret_expires_at"]) == (found["generation"], found["previous_secret_expires_at"])
    text = (await begun.run("endpoint", "public-key", *options_of(one))).out.splitlines()
    assert [["current", found["public_key"]], ["previous", f"{first},"]] == [line.split()[:2] for line in text]

    to_hmac = ("--algorithm", "hmac", "--force", "--overlap", "600", "--json")
    assert 0 == (await begun.run("endpoint", "rotate", *options_of(one), *to_hmac)).code
    mixed = (await public_key(begun, one)).json
    assert (None, rotated.json["public_key"]) == (mixed["public_key"], mixed["previous_public_key"])
    assert 0 == (await begun.run("endpoint", "end-overlap", *options_of(one), "--json")).code
    refused = await public_key(begun, one)
    assert (5, "refused") == (refused.code, refused.json["error"]["code"])


@pytest.mark.req("OPS-04", part="errors")
async def test_an_hmac_endpoint_has_no_public_key(begun: Begun) -> None:
    """An endpoint that signs with HMAC exits 5 and names the command that changes it; an unknown one exits 3."""
    hmac = (await begun.stored.endpoint()).pointer.endpoint_id
    refused = await public_key(begun, hmac)
    assert (5, "endpoint") == (refused.code, refused.json["error"]["field"])
    assert "`hookseal endpoint rotate --algorithm ed25519`" in refused.json["error"]["message"]
    others, unknown = await public_key(begun, hmac, "globex"), await public_key(begun, UNKNOWN)
    assert (3, others.out) == (unknown.code, unknown.out)


@pytest.mark.req("SEC-24", part="pointer-mac")
async def test_an_altered_row_shows_no_key(begun: Begun) -> None:
    """No key of an altered row is shown, because it may be another endpoint's."""
    one, _ = await ed25519(begun)
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET lead = 'current'")
    ended = await public_key(begun, one)
    assert (5, "secret_tampered") == (ended.code, ended.json["error"]["code"])


@pytest.mark.req("OPS-04", part="errors")
async def test_x_webhook_has_no_ed25519() -> None:
    """With x-webhook it exits 2 before a database is contacted, and names both alternatives."""
    ended = await hookseal(*ADD, "--url", URL, "--scheme", "x-webhook", "--json", **NOWHERE)
    assert (2, "algorithm") == (ended.code, ended.json["error"]["field"])
    assert "--algorithm hmac, or --scheme standard" in ended.json["error"]["message"]


async def test_help_has_an_example() -> None:
    """The help says what `--secret-out` contains, and has an example."""
    text = " ".join((await hookseal("endpoint", "add", "--help", COLUMNS="300")).out.split())
    assert "for ed25519 it gets the public key" in text
    assert "Example: hookseal endpoint public-key" in (await hookseal("endpoint", "public-key", "--help")).out
