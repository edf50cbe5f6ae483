"""A KMS keeps the master key: `key wrap`, `key init --kms`, and every command with wrapped keys, on a real OpenBao."""

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import forked
from tests.cli.command import DEADLINE_SECONDS, fed, hookseal
from tests.cli.installation import Begun
from tests.doubles.openbao import ROOT_TOKEN, token_for
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.secrets.kms_sites import openbao_site

pytestmark = pytest.mark.req("SEC-25")

INSTALLATION = "production"


@pytest.fixture
async def kms(openbao_address: str) -> AsyncIterator[dict[str, str]]:
    """Yield the settings of a KMS of its own, in production."""
    async with openbao_site(openbao_address) as site:
        yield {
            "SECRETS_KMS": str(site.one),
            "SECRETS_KMS_INSTALLATION": INSTALLATION,
            "BAO_ADDR": openbao_address,
            "BAO_TOKEN": ROOT_TOKEN,
        }


async def test_an_installation_begins_and_moves_with_wrapped_keys(database_url: str, kms: dict[str, str]) -> None:
    """An installation begins with a wrapped key, moves to another one, and retires the first, all by the KMS."""
    base = {"DATABASE_URL": database_url, "SECRETS_PROVIDER": "db", **kms}
    made = await hookseal("key", "init", "--kms", "--json", **base)
    assert (0, "") == (made.code, made.err)
    first = made.json["wrapped"]
    assert {"state": "active", "kms": kms["SECRETS_KMS"], "installation": INSTALLATION} == {
        name: made.json[name] for name in ("state", "kms", "installation")
    }
    assert first.startswith(f"v1.{made.json['key_id']}.")
    refused = await hookseal("key", "init", "--kms", "--json", **base)
    assert (4, "conflict") == (refused.code, refused.json["error"]["code"])
    twice = await hookseal("key", "init", "--kms", **base, SECRETS_MASTER_KEY_WRAPPED=first)
    assert (78, "hookseal: SECRETS_MASTER_KEY_WRAPPED is set, and this command makes the master key: remove it\n") == (
        twice.code,
        twice.err,
    )

    drawn = await hookseal("key", "wrap", "--new", **base)
    assert (0, "") == (drawn.code, drawn.err)
    second = drawn.out.strip()
    ids = made.json["key_id"], second.split(".")[1]
    staged = base | {"SECRETS_MASTER_KEY_WRAPPED": first, "SECRETS_MASTER_KEY_NEXT_WRAPPED": second}
    swapped = base | {"SECRETS_MASTER_KEY_WRAPPED": second, "SECRETS_MASTER_KEY_PREVIOUS_WRAPPED": first}
    for settings, arguments in (
        (staged, ("stage",)),
        (staged, ("promote", ids[1])),
        (swapped, ("rewrap", ids[0])),
        (base | {"SECRETS_MASTER_KEY_WRAPPED": second}, ("retire", ids[0])),
    ):
        ended = await hookseal("key", *arguments, "--json", **settings)
        assert 0 == ended.code, ended.out
    shown = await hookseal("key", "status", "--json", **base, SECRETS_MASTER_KEY_WRAPPED=second)
    assert {ids[0]: ("retired", False), ids[1]: ("active", True)} == {
        row["key_id"]: (row["state"], row["held"]) for row in shown.json["items"]
    }


async def test_an_existing_key_is_wrapped(begun: Begun, kms: dict[str, str], tmp_path: Path) -> None:
    """The key of an installation is wrapped from its settings, a file or standard input, and serves as well."""
    file, wrapped = tmp_path / "master.key", tmp_path / "wrapped"
    file.write_text(MASTER_KEY_TEXT + "\n")
    file.chmod(0o600)
    of_settings = await begun.run("key", "wrap", "--json", **kms)
    of_file = await hookseal("key", "wrap", "--key-file", str(file), "--json", **kms)
    of_input = await fed(MASTER_KEY_TEXT.encode(), "key", "wrap", "--key-file", "-", "--json", **kms)
    assert 1 == len({ended.json["key_id"] for ended in (of_settings, of_file, of_input)})

    settings = {name: value for name, value in begun.settings.items() if name != "SECRETS_MASTER_KEY"} | kms
    for ended in (of_settings, of_file, of_input):
        assert MASTER_KEY_TEXT not in ended.out + ended.err
        wrapped.write_text(ended.json["wrapped"] + "\n")
        shown = await hookseal("key", "status", "--json", **settings, SECRETS_MASTER_KEY_WRAPPED_FILE=str(wrapped))
        assert [True] == [row["held"] for row in shown.json["items"]]

    file.chmod(0o644)
    exposed = await hookseal("key", "wrap", "--key-file", str(file), **kms)
    assert (5, True) == (exposed.code, "chmod 600" in exposed.err)


@pytest.mark.parametrize(
    ("arguments", "text", "code", "message"),
    [
        (("--new", "--key-file", "-"), "", 2, "leave out one of them"),
        (("--key-file", "-"), "c2hvcnQ=", 2, "32 random bytes"),
        (("--new", "--to", "azure:x"), "", 2, "openbao:MOUNT/KEY"),
        (("--new",), None, 5, "SECRETS_KMS is not set"),
    ],
)
async def test_a_missing_or_wrong_input_is_named(
    kms: dict[str, str], arguments: tuple[str, ...], text: str | None, code: int, message: str
) -> None:
    """The error names each input that is missing or wrong."""
    ended = await fed((text or "").encode(), "key", "wrap", *arguments, **({} if text is None else kms))
    assert (code, True) == (ended.code, message in ended.err)


async def test_a_key_moves_to_another_kms_and_back(kms: dict[str, str], openbao_address: str) -> None:
    """With `--to` the key of the settings moves to another KMS, and back again as the same key."""
    async with openbao_site(openbao_address) as other:
        made = await hookseal("key", "wrap", "--new", "--json", **kms)
        base = kms | {"SECRETS_PROVIDER": "db"}
        moved = await hookseal(
            *("key", "wrap", "--to", str(other.one), "--json"),
            **base,
            SECRETS_MASTER_KEY_WRAPPED=made.json["wrapped"],
        )
        assert (made.json["key_id"], str(other.one)) == (moved.json["key_id"], moved.json["kms"])
        back = await hookseal(
            *("key", "wrap", "--json"),
            **(base | {"SECRETS_KMS": str(other.one)}),
            SECRETS_MASTER_KEY_WRAPPED=moved.json["wrapped"],
        )
        assert made.json["key_id"] == back.json["key_id"]


async def test_a_refusal_of_the_kms_ends_the_command(
    database_url: str, kms: dict[str, str], openbao_address: str
) -> None:
    """Another installation, or a token without the right, ends each command with 78, before it connects."""
    made = await hookseal("key", "wrap", "--new", "--json", **kms)
    settings = kms | {
        "DATABASE_URL": database_url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY_WRAPPED": made.json["wrapped"],
    }
    elsewhere = await hookseal("key", "status", "--json", **(settings | {"SECRETS_KMS_INSTALLATION": "staging"}))
    error = elsewhere.json["error"]
    assert (78, "kms_refused", "SECRETS_KMS") == (elsewhere.code, error["code"], error["field"])
    assert "for the installation staging" in error["message"]
    token = (await token_for(openbao_address)).reveal().decode()
    denied = await hookseal("key", "status", **(settings | {"BAO_TOKEN": token}))
    assert (78, True) == (denied.code, "give its policy that right" in denied.err)
    assert token not in denied.err
    worker = await hookseal("worker", **(settings | {"BAO_TOKEN": token, "REDIS_URL": "redis://127.0.0.1:1"}))
    assert (78, "", denied.err) == (worker.code, worker.out, worker.err)


async def test_nothing_is_half_done(database_url: str, kms: dict[str, str], openbao_address: str) -> None:
    """A wrapped key that cannot be unwrapped again is not printed, and no installation begins with it."""
    key = kms["SECRETS_KMS"].removeprefix("openbao:").replace("/", "/encrypt/")
    token = (await token_for(openbao_address, f'path "{key}" {{ capabilities = ["update"] }}')).reveal().decode()
    settings = kms | {"DATABASE_URL": database_url, "SECRETS_PROVIDER": "db"}
    for words in (("wrap", "--new"), ("init", "--kms")):
        refused = await hookseal("key", *words, **(settings | {"BAO_TOKEN": token}))
        assert (78, "", True) == (refused.code, refused.out, "/decrypt/" in refused.err)
        assert token not in refused.err
    begun = await hookseal("key", "init", "--kms", **settings)
    assert (0, "") == (begun.code, begun.err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
async def test_a_wrapped_key_that_cannot_be_printed(database_url: str, kms: dict[str, str]) -> None:
    """If the disk is full after the key was registered, the wrapped key is on standard error and is usable."""
    settings = kms | {"DATABASE_URL": database_url, "SECRETS_PROVIDER": "db"}
    full = os.open("/dev/full", os.O_WRONLY)
    process = await forked.start(
        *("key", "init", "--kms", "--json"), env={**os.environ, **settings}, stdout=full, stderr=PIPE
    )
    os.close(full)
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert 69 == process.returncode
    _, _, wrapped = err.decode().splitlines()[0].partition("SECRETS_MASTER_KEY_WRAPPED is ")
    shown = await hookseal("key", "status", "--json", **settings, SECRETS_MASTER_KEY_WRAPPED=wrapped)
    assert [("active", True)] == [(row["state"], row["held"]) for row in shown.json["items"]]
