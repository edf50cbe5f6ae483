"""Endpoints that sign with ed25519, on the command line: only the public key is ever shown."""

from pathlib import Path

import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from tests.cli.command import Ended, on_a_terminal
from tests.cli.installation import Begun, options_of

pytestmark = pytest.mark.req("DEL-04", part="standard-ed25519")

URL = "https://receiver.example/hook"
ADD = ("endpoint", "add", "--tenant", "acme", "--event-type", "*", "--algorithm", "ed25519")


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


async def test_a_given_key_pair_is_accepted(begun: Begun) -> None:
    """A `whsk_` is accepted; an HMAC secret and a `whpk_` are refused."""
    pair = generate_signing_secret(Algorithm.ED25519)
    add = (*ADD, "--url", URL, "--secret-file", "-", "--json")
    for wrong in (generate_signing_secret().reveal(), str(public_key_of(pair)).encode()):
        refused = await begun.fed(wrong, *add)
        assert (2, "secret") == (refused.code, refused.json["error"]["field"])
    assert public_key_of(pair) == (await begun.fed(pair.reveal(), *add)).json["public_key"]


async def test_an_overlap_shows_both_public_keys(begun: Begun) -> None:
    """While both secrets sign, the public key of each ed25519 secret is shown, as JSON and text."""
    one, first = await ed25519(begun)
    rotated = await begun.run("endpoint", "rotate", *options_of(one), "--overlap", "600", "--json")
    found = (await public_key(begun, one)).json
    assert (rotated.json["public_key"], first) == (found["public_key"], found["previous_public_key"])
    assert (2, rotated.json["previous_secret_expires_at"]) == (found["generation"], found["previous_secret_expires_at"])
    text = (await begun.run("endpoint", "public-key", *options_of(one))).out.splitlines()
    assert [["current", found["public_key"]], ["previous", f"{first},"]] == [line.split()[:2] for line in text]
