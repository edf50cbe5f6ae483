"""`hookseal secret reveal` outputs the current secret to a file or a terminal, or if `--print-secret` is given."""

import stat
from pathlib import Path

import pytest

from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.cli.command import on_a_terminal
from tests.cli.installation import Begun
from tests.doubles.logbook import audited

pytestmark = pytest.mark.req("SEC-11")


def of(endpoint: str) -> tuple[str, ...]:
    """Return the command that reveals the secret of an endpoint."""
    return ("secret", "reveal", "--tenant", "acme", "--endpoint", endpoint)


async def revealed(begun: Begun) -> int:
    """Return the number of audited reveals."""
    return [row["action"] for row in await audited(begun.stored.pool)].count("secret.revealed")


async def test_a_reveal_is_output_and_audited(begun: Begun, tmp_path: Path) -> None:
    """The secret goes to a file for its owner only, to a terminal, or is printed on request; each time is audited."""
    added = await begun.stored.endpoint()
    endpoint, secret = added.pointer.endpoint_id, added.secret.reveal().decode()
    file = tmp_path / "current"
    ended = await begun.run(*of(endpoint), "--secret-out", str(file), "--json")
    shape = {
        "tenant_id": "acme",
        "endpoint_id": endpoint,
        "secret_ref": added.pointer.secret_ref,
        "scheme": "standard",
        "algorithm": "hmac",
        "generation": 1,
        "secret": None,
        "public_key": None,
    }
    assert (0, shape) == (ended.code, ended.json)
    assert (secret + "\n", 0o600) == (file.read_text(), stat.S_IMODE(file.stat().st_mode))
    assert secret == (await begun.run(*of(endpoint), "--print-secret", "--json")).json["secret"]
    assert secret in (await begun.run(*of(endpoint), "--print-secret")).out
    assert secret in (await on_a_terminal(*of(endpoint), **begun.settings)).out
    output = (await begun.run(*of(endpoint), "--secret-out", str(tmp_path / "again"))).out
    assert f"in {tmp_path / 'again'}" in output
    assert secret not in output
    assert 5 == await revealed(begun)


async def test_a_reveal_without_an_output_is_refused(begun: Begun) -> None:
    """Without a terminal and without an option nothing is output or audited, and the error names the option."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    text, as_json = await begun.run(*of(endpoint)), await begun.run(*of(endpoint), "--json")
    assert (2, 2, "secret_out") == (text.code, as_json.code, as_json.json["error"]["field"])
    assert "--secret-out FILE" in text.err
    assert 0 == await revealed(begun)


async def test_a_key_pair_reveals_its_public_key_only(begun: Begun, tmp_path: Path) -> None:
    """Of an ed25519 key pair only the public key is ever output."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    pair = generate_signing_secret(Algorithm.ED25519)
    request = RotationRequest(
        tenant_id=TenantId("acme"), endpoint_id=endpoint, overlap_seconds=0, secret=pair, algorithm=Algorithm.ED25519
    )
    async with begun.stored.pool.acquire() as connection:
        await rotate_secret(begun.stored.operator(connection), request)
    file = tmp_path / "public"
    ended = await begun.run(*of(endpoint), "--secret-out", str(file), "--print-secret", "--json")
    assert (0, None, public_key_of(pair)) == (ended.code, ended.json["secret"], ended.json["public_key"])
    assert f"{public_key_of(pair)}\n" == file.read_text()
    text = await begun.run(*of(endpoint), "--print-secret")
    assert f"public key {public_key_of(pair)}" in text.out
    assert "whsk_" not in ended.out + text.out + text.err


@pytest.mark.req("SEC-14", part="append")
@pytest.mark.parametrize(("where", "code"), [("nowhere/file", 5), ("there", 4)])
async def test_a_failed_output_is_not_audited(begun: Begun, tmp_path: Path, where: str, code: int) -> None:
    """A secret that could not be output is not audited as revealed; a file that exists stays as it is."""
    (tmp_path / "there").write_text("precious")
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    ended = await begun.run(*of(endpoint), "--secret-out", str(tmp_path / where), "--json")

    assert (code, "secret_out") == (ended.code, ended.json["error"]["field"])
    assert "precious" == (tmp_path / "there").read_text()
    assert 0 == await revealed(begun)
