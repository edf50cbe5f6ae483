"""`hookseal endpoint rotate --algorithm ed25519` outputs the public key and nothing else."""

import stat
from pathlib import Path

import pytest

from hookseal.ground.wire import Algorithm
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from tests.cli.endpoint.test_rotation import added, run
from tests.cli.installation import Begun

pytestmark = pytest.mark.req("DEL-04", part="standard-ed25519")


async def test_a_rotation_outputs_the_public_key_only(begun: Begun, tmp_path: Path) -> None:
    """The file and the answer have the public key of the signing version; the private key is in neither."""
    endpoint, file = await added(begun), tmp_path / "key"
    ended = await run(begun, "rotate", endpoint, "--algorithm", "ed25519", "--secret-out", str(file), "--print-secret")

    key = ended.json["public_key"]
    assert (0, None) == (ended.code, ended.json["secret"])
    assert key.startswith("whpk_")
    assert (f"{key}\n", 0o600) == (file.read_text(), stat.S_IMODE(file.stat().st_mode))
    assert "whsk_" not in ended.out + ended.err
    row = await begun.stored.pool.fetchrow("SELECT algorithm, previous_algorithm FROM hookseal.endpoints")
    assert ("ed25519", "hmac") == tuple(row or ())


async def test_an_ed25519_endpoint_stays_ed25519(begun: Begun, tmp_path: Path) -> None:
    """Without `--algorithm` it stays with ed25519, and file and repeat have the new public key."""
    endpoint = await added(begun)
    first = await run(begun, "rotate", endpoint, "--algorithm", "ed25519", "--overlap", "0")
    file, again = tmp_path / "key", tmp_path / "again"
    second = await run(begun, "rotate", endpoint, "--rotation-id", "r2", "--secret-out", str(file))
    repeated = await run(begun, "rotate", endpoint, "--rotation-id", "r2", "--secret-out", str(again))

    key = second.json["public_key"]
    assert key.startswith("whpk_")
    assert key != first.json["public_key"]
    assert (0, key, f"{key}\n", f"{key}\n") == (
        repeated.code,
        repeated.json["public_key"],
        file.read_text(),
        again.read_text(),
    )


async def test_a_rotation_to_hmac_outputs_a_secret(begun: Begun, tmp_path: Path) -> None:
    """With `--algorithm hmac` it outputs a secret again."""
    endpoint, file = await added(begun), tmp_path / "secret"
    await run(begun, "rotate", endpoint, "--algorithm", "ed25519", "--overlap", "0")
    ended = await run(begun, "rotate", endpoint, "--algorithm", "hmac", "--secret-out", str(file))

    assert (0, None, True) == (ended.code, ended.json["public_key"], file.read_text().startswith("whsec_"))


async def test_a_given_key_pair_signs(begun: Begun, tmp_path: Path) -> None:
    """A key pair from a file signs from then on; only its public key is output."""
    endpoint, file = await added(begun), tmp_path / "pair"
    pair = generate_signing_secret(Algorithm.ED25519)
    file.touch(0o600)
    file.write_text(pair.reveal().decode())
    ended = await run(begun, "rotate", endpoint, "--algorithm", "ed25519", "--secret-file", str(file))

    assert (0, public_key_of(pair), None) == (ended.code, ended.json["public_key"], ended.json["secret"])


async def test_the_text_shows_the_public_key(begun: Begun, tmp_path: Path) -> None:
    """The text shows the public key, the file with it, and who needs it."""
    endpoint, file = await added(begun), tmp_path / "key"
    of = ("--tenant", "acme", "--endpoint", endpoint, "--algorithm", "ed25519", "--secret-out", str(file))
    ended = await begun.run("endpoint", "rotate", *of)

    assert 0 == ended.code
    assert f"public key {file.read_text()}           also in {file}\nGive the public key to the receiver." in ended.out


async def test_x_webhook_with_ed25519_is_refused(begun: Begun) -> None:
    """The scheme x-webhook with ed25519 is refused (2), and nothing is rotated."""
    endpoint = await added(begun)
    ended = await run(begun, "rotate", endpoint, "--scheme", "x-webhook", "--algorithm", "ed25519")

    assert (2, "algorithm") == (ended.code, ended.json["error"]["field"])
    assert 1 == await begun.stored.pool.fetchval("SELECT generation FROM hookseal.endpoints")
