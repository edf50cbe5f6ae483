"""`hookseal verify` answers as a receiver would, and says why. It needs no process of its own: it reads files only."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hookseal.cli.main import run_command
from hookseal.ground.wire import MAX_BODY_BYTES
from tests.cli.command import Ended
from tests.receiver.requests import AT, BODY, DELIVERY, KNOWN, OTHER_SECRET, SECRET, X_SECRET, standard, x_webhook
from tests.vectors.reading import vectors

pytestmark = [pytest.mark.req("SEC-20", part="hmac"), pytest.mark.req("OPS-04", part="json")]

ASYMMETRIC: dict[str, Any] = vectors("standard_v1a.json")["tests"][0]
PUBLIC: str = ASYMMETRIC["public_key"]
PRIVATE: str = ASYMMETRIC["secret"]
NOW = ("--at", str(AT + 2))
FRESH: dict[str, Any] = {"verified": True, "reason": None, "timestamp": AT, "age_seconds": 2.0}


class Kept:
    """A request that is stored in files."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._captured = captured
        self.secret = self.write("secret", f"{SECRET}\n", mode=0o600)
        self.headers = self.write("headers", "".join(f"{name}: {value}\r\n" for name, value in standard().items()))
        self.body = self.write("body", BODY)

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return str(path)

    def verified(self, *options: str, **files: str) -> Ended:
        """Run the command on these files, with changes; no output contains a secret."""
        named = {"secret_file": self.secret, "headers_file": self.headers, "body_file": self.body} | files
        arguments = [part for name, path in named.items() for part in (f"--{name.replace('_', '-')}", path)]
        code = run_command(["verify", *arguments, *options])
        shown = self._captured.readouterr()
        ended = Ended(code=code, out=shown.out, err=shown.err)
        assert not any(secret in ended.out + ended.err for secret in (SECRET, OTHER_SECRET, X_SECRET, PRIVATE))
        return ended


@pytest.fixture
def files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Kept:
    """Return a stored request that verifies at the time `NOW`."""
    return Kept(tmp_path, capsys)


def test_a_valid_request_exits_0(files: Kept) -> None:
    """The command exits 0 and prints what was verified, without any setting in the environment."""
    ended = files.verified(*NOW, "--json")
    assert (0, "") == (ended.code, ended.err)
    assert FRESH | {"scheme": "standard", "delivery_id": KNOWN["id"], "secret_number": 1} == ended.json
    assert (
        f"verified  yes, with secret 1 of 1\nscheme    standard\ndelivery  {KNOWN['id']}\ntime      {AT}, 2 s old\n"
    ) == files.verified(*NOW).out


@pytest.mark.req("SEC-20")
@pytest.mark.req("DEL-04", part="standard-ed25519")
def test_the_number_of_the_matching_secret_is_printed(files: Kept) -> None:
    """`--secret-file` may be repeated; a file with a public key may be readable by others."""
    another = files.write("another", X_SECRET, mode=0o600)
    headers = files.write("x", json.dumps(x_webhook()))
    ended = files.verified("--secret-file", another, *NOW, "--json", headers_file=headers)
    assert FRESH | {"scheme": "x-webhook", "delivery_id": DELIVERY, "secret_number": 2} == ended.json

    headers = files.write("asymmetric", json.dumps(standard(ASYMMETRIC)))
    for mode, end in ((0o600, "\n"), (0o640, ""), (0o644, "\n"), (0o644, "\r\n")):
        public = files.write("public", PUBLIC + end, mode=mode)
        ended = files.verified("--secret-file", public, *NOW, "--json", headers_file=headers)
        assert FRESH | {"scheme": "standard", "delivery_id": KNOWN["id"], "secret_number": 2} == ended.json, (mode, end)


@pytest.mark.req("SEC-20")
@pytest.mark.parametrize(
    "content",
    [
        *(SECRET, PRIVATE, f"{PRIVATE}\n{PUBLIC}\n", f"{PUBLIC}\n{SECRET}\n", f"{PUBLIC} {SECRET}"),
        *(f" {PUBLIC}", PUBLIC + "x" * 256, b"whpk_\xff", ""),
    ],
)
def test_only_a_public_key_may_be_readable_by_others(files: Kept, content: str | bytes) -> None:
    """A file that others may read is refused unless it has exactly one public key; its content is not shown."""
    ended = files.verified(*NOW, "--json", secret_file=files.write("open", content, mode=0o644))
    assert (5, "secret_file") == (ended.code, ended.json["error"]["field"])
    assert "chmod 600" in ended.json["error"]["message"]


def test_an_unusable_or_wrong_secret_has_its_reason(files: Kept) -> None:
    """A wrong secret does not match; one that cannot be used is another reason, with what is wrong."""
    for text, reason, said in (
        (OTHER_SECRET, "no_matching_signature", "NO: "),
        ("", "unusable_secret", "secret 1 is "),
        (PRIVATE, "unusable_secret", "secret 1 is a private key"),
    ):
        file = files.write("other", text, mode=0o600)
        ended = files.verified(*NOW, "--json", secret_file=file)
        assert (1, reason) == (ended.code, ended.json["reason"])
        assert said in files.verified(*NOW, secret_file=file).out
    body = files.verified(*NOW, "--json", body_file=files.write("edited", BODY + b"\n"))
    assert (1, "no_matching_signature") == (body.code, body.json["reason"])  # an editor added the newline


def test_an_old_request_exits_1_with_its_age(files: Kept) -> None:
    """An old request exits 1 with its age, and says that its signature matches; `--tolerance` accepts it."""
    ended = files.verified("--at", str(AT + 400), "--json")
    assert (1, "") == (ended.code, ended.err)
    assert {
        "verified": False,
        "reason": "outside_tolerance",
        "scheme": "standard",
        "delivery_id": KNOWN["id"],
        "timestamp": AT,
        "age_seconds": 400.0,
        "secret_number": None,
    } == ended.json
    shown = files.verified("--at", str(AT + 400)).out
    assert shown.startswith("verified  NO: the signature matches, but the request is 400 s old: 300 s are allowed\n")
    assert files.verified("--at", str(AT - 400)).out.endswith(f"time      {AT}, 400 s ahead\n")
    assert f" {AT}, 400.5 s old\n" in files.verified("--at", str(AT + 400.5)).out
    assert 0 == files.verified("--at", str(AT + 400), "--tolerance", "400").code
    now = files.verified("--json")  # the default is now, and the request is of 2021
    assert (1, "outside_tolerance") == (now.code, now.json["reason"])


@pytest.mark.parametrize(
    ("headers", "reason", "stated"),
    [
        ({}, "missing_header", (None, None, None)),
        (standard(id="a.b\x1b[2J"), "malformed_header", ("standard", "a.b\x1b[2J", AT)),
        (x_webhook(signature="sha256="), "no_matching_signature", ("x-webhook", DELIVERY, AT)),
    ],
)
def test_an_invalid_request_exits_1_with_its_reason(
    files: Kept, headers: dict[str, str], reason: str, stated: tuple[str | None, str | None, int | None]
) -> None:
    """The command exits 1 with the reason and the request's own values, with control characters escaped."""
    path = files.write("others", json.dumps(headers))
    ended, shown = files.verified(*NOW, "--json", headers_file=path), files.verified(*NOW, headers_file=path)
    assert (1, False, reason) == (ended.code, ended.json["verified"], ended.json["reason"])
    assert stated == (ended.json["scheme"], ended.json["delivery_id"], ended.json["timestamp"])
    assert (1, True) == (shown.code, shown.out.startswith("verified  NO: "))
    assert "\x1b" not in ended.out + shown.out


def test_headers_are_lines_or_json(files: Kept) -> None:
    """A first line of HTTP and what follows an empty line are ignored; JSON has a text or a list for each name."""
    lines = "".join(f"{name.title()}:\t {value} \r\n" for name, value in standard().items())
    listed = json.dumps({name: [value] for name, value in standard().items()} | {"host": "a"}).encode()
    for content in (
        f"POST /hook?a=b HTTP/1.1\r\nHost: a\r\n{lines}\r\nwebhook-id: of the body\r\n",
        f"HTTP/1.1 200 OK\r\n{lines}\r\n",
        f"HTTP/2 200 \n{lines}\n",
        lines,
        listed,
        b"\xef\xbb\xbf" + listed,
        b" \n" + listed,
    ):
        ended = files.verified(*NOW, headers_file=files.write("dump", content))
        assert (0, "") == (ended.code, ended.err), content
    twice = "".join(f"{name}: {value}\n" for name, value in standard().items()) + "Webhook-Id: other\n"
    for content in (twice, json.dumps(standard() | {"Webhook-Id": "other"})):  # joined, as servers do
        ended = files.verified(*NOW, "--json", headers_file=files.write("twice", content))
        assert (1, "malformed_header") == (ended.code, ended.json["reason"])


@pytest.mark.req("OPS-04", part="errors")
def test_an_unusable_file_names_its_option(files: Kept) -> None:
    """Text without headers, an absent file and one that is too large exit 2, and name their option."""
    texts = ("webhook-id", ": value\n", "a: b\n c: d\n", "{", '{"a": 1}', '{"a": [1]}', "{}{}", '{"a":' + "[" * 9_000)
    for text in texts:
        ended = files.verified("--json", headers_file=files.write("others", text))
        assert (2, "headers_file") == (ended.code, ended.json["error"]["field"]), text
    for option in ("secret_file", "headers_file", "body_file"):
        ended = files.verified("--json", **{option: str(files.folder / "absent")})
        assert (2, option) == (ended.code, ended.json["error"]["field"])
    for option, most in (("headers_file", 65_536), ("body_file", MAX_BODY_BYTES)):
        ended = files.verified("--json", **{option: files.write("large", "x" * (most + 1))})
        assert (2, option, True) == (ended.code, ended.json["error"]["field"], str(most) in ended.out)


def test_one_file_may_be_standard_input(files: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the files may be standard input, and only one."""
    given = {"secret_file": SECRET.encode(), "headers_file": json.dumps(standard()).encode(), "body_file": BODY}
    for option, content in given.items():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert 0 == files.verified(*NOW, **{option: "-"}).code
    twice = files.verified("--json", headers_file="-", body_file="-")
    assert (2, True) == (twice.code, "once" in twice.json["error"]["message"])
