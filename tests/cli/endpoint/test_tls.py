"""`endpoint add` and `update` with certificates and a key: which files are accepted, and what is shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Ended
from tests.cli.installation import Begun
from tests.doubles.client_certificates import Authority

pytestmark = pytest.mark.req("DEL-13", part="client-keys")

AUTHORITY = Authority()
CLIENT = AUTHORITY.client("hookseal of acme")


class Files:
    """Files in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, content: bytes, *, mode: int = 0o600) -> str:
        """Return a file with this content."""
        path = self._folder / f"file-{len(list(self._folder.iterdir()))}"
        path.touch(0o600)
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    def client(self, certificate: bytes = CLIENT.certificate, key: bytes = CLIENT.key) -> tuple[str, ...]:
        """Return the options of a client certificate; others may read its file, but not that of the key."""
        return ("--client-cert", self.file(certificate, mode=0o644), "--client-key", self.file(key))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a folder for files."""
    return Files(tmp_path)


async def add(begun: Begun, *options: str) -> Ended:
    """Add an endpoint with these options."""
    url = ("--tenant", "acme", "--url", "https://receiver.example/hook", "--event-type", "*")
    return await begun.run("endpoint", "add", *url, *options, "--json")


async def update(begun: Begun, endpoint: str, *options: str) -> Ended:
    """Update the endpoint with these options."""
    return await begun.run("endpoint", "update", "--tenant", "acme", "--endpoint", endpoint, *options)


async def tls_of(begun: Begun, endpoint: str) -> Any:
    """Return what `endpoint show` says of its TLS identity."""
    ended = await begun.run("endpoint", "show", "--tenant", "acme", "--endpoint", endpoint, "--json")
    return ended.json["tls"]


async def test_an_identity_is_shown_and_removed(begun: Begun, files: Files) -> None:
    """An identity is shown by subject, fingerprint and expiry, as JSON and text, and each part can be removed."""
    ended = await add(begun, *files.client(), "--ca-file", files.file(AUTHORITY.pem, mode=0o644))
    assert 0 == ended.code, ended
    endpoint = ended.json["endpoint_id"]
    shown = await tls_of(begun, endpoint)
    assert ("CN=hookseal of acme", ["CN=authority"]) == (
        shown["client_certificate"]["subject"],
        [each["subject"] for each in shown["authorities"]],
    )
    text = (await begun.run("endpoint", "show", "--tenant", "acme", "--endpoint", endpoint)).out
    assert (
        f"client certificate: CN=hookseal of acme, until {shown['client_certificate']['expires_at']}, sha256 " in text
    )
    assert "authority: CN=authority, until" in text

    ended = await update(begun, endpoint, "--remove-ca", "--json")
    assert (0, ["tls"], 2) == (ended.code, ended.json["changed"], ended.json["generation"])
    ended = await update(begun, endpoint, "--remove-client-cert")
    assert (0, True) == (ended.code, "tls: client certificate: CN=hookseal of acme" in ended.out)
    assert None is await tls_of(begun, endpoint)
    assert 3 == (await update(begun, endpoint, "--remove-ca")).code
    again = await update(begun, endpoint, *files.client())
    assert (0, True) == (again.code, "tls: - -> client certificate: CN=hookseal of acme" in again.out)


async def test_an_unusable_certificate_is_refused(begun: Begun, files: Files) -> None:
    """A file that cannot be used names its option, without the key; so does a key that others may read (5)."""
    certificate, key = files.file(CLIENT.certificate), files.file(CLIENT.key)
    for code, field, options in (
        (2, "client_cert", ("--client-cert", certificate)),
        (2, "client_key", files.client(key=AUTHORITY.client().key)),
        (2, "ca_file", ("--ca-file", key)),
        (5, "client_key", ("--client-cert", certificate, "--client-key", files.file(CLIENT.key, mode=0o640))),
    ):
        ended = await add(begun, *options)
        assert (code, field) == (ended.code, ended.json["error"]["field"]), ended
        for line in CLIENT.key.decode().splitlines()[1:-1]:
            assert line not in ended.out + ended.err


async def test_a_part_cannot_be_set_and_removed_at_once(begun: Begun, files: Files) -> None:
    """The same part cannot be set and removed in one command (2)."""
    endpoint = (await add(begun, *files.client())).json["endpoint_id"]
    ca = ("--ca-file", files.file(AUTHORITY.pem))
    for options in ((*files.client(), "--remove-client-cert"), (*ca, "--remove-ca")):
        ended = await update(begun, endpoint, *options, "--json")
        assert (2, True) == (ended.code, "to be removed" in ended.json["error"]["message"])
    assert 1 == json.loads((await update(begun, endpoint, *files.client(), "--json")).out)["generation"]
