"""`hookseal verify` answers as a receiver would, and says why."""

import json
from pathlib import Path
from typing import Any

import pytest

from hookseal.ground.wire import MAX_BODY_BYTES
from tests.cli.command import Ended, fed, hookseal
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

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = self.write("secret", f"{SECRET}\n", mode=0o600)
        self.headers = self.write("headers", "".join(f"{name}: {value}\r\n" for name, value in standard().items()))
        self.body = self.write("body", BODY)

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return str(path)

    async def verified(self, *options: str, **files: str) -> Ended:
        """Run the command on these files, with changes; no output contains a secret."""
        named = {"secret_file": self.secret, "headers_file": self.headers, "body_file": self.body} | files
        arguments = [part for name, path in named.items() for part in (f"--{name.replace('_', '-')}", path)]
        ended = await hookseal("verify", *arguments, *options)
        assert not any(secret in ended.out + ended.err for secret in (SECRET, OTHER_SECRET, X_SECRET, PRIVATE))
        return ended


@pytest.fixture
def files(tmp_path: Path) -> Kept:
    """Return a stored request that verifies at the time `NOW`."""
    return Kept(tmp_path)


async def test_a_valid_request_exits_0(files: Kept) -> None:
    """The command exits 0 and prints what was verified, without any setting in the environment."""
    ended = await files.verified(*NOW, "--json")
    assert (0, "") == (ended.code, ended.err)
    assert FRESH | {"scheme": "standard", "delivery_id": KNOWN["id"], "secret_number": 1} == ended.json

    shown = await files.verified(*NOW)
    assert 0 == shown.code
    assert (
        f"verified  yes, with secret 1 of 1\nscheme    standard\ndelivery  {KNOWN['id']}\ntime      {AT}, 2 s old\n"
    ) == shown.out


async def test_the_number_of_the_matching_secret_is_printed(files: Kept) -> None:
    """`--secret-file` may be repeated, and the number of the secret that matched is printed."""
    headers = files.write("x", json.dumps(x_webhook()))
    another = files.write("another", X_SECRET, mode=0o600)
    ended = await files.verified("--secret-file", another, *NOW, "--json", headers_file=headers)

    assert 0 == ended.code
    assert FRESH | {"scheme": "x-webhook", "delivery_id": DELIVERY, "secret_number": 2} == ended.json


@pytest.mark.req("SEC-20")
@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize(("mode", "end"), [(0o600, "\n"), (0o640, ""), (0o644, "\n"), (0o644, "\r\n")])
async def test_a_public_key_verifies_ed25519(files: Kept, mode: int, end: str) -> None:
    """A file with a public key verifies ed25519, also beside secrets; others may read it."""
    headers = files.write("asymmetric", json.dumps(standard(ASYMMETRIC)))
    public = files.write("public", PUBLIC + end, mode=mode)
    ended = await files.verified("--secret-file", public, *NOW, "--json", headers_file=headers)

    assert (0, "") == (ended.code, ended.err)
    assert FRESH | {"scheme": "standard", "delivery_id": KNOWN["id"], "secret_number": 2} == ended.json


@pytest.mark.req("SEC-20")
@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        PRIVATE,
        f"{PRIVATE}\n{PUBLIC}\n",
        f"{PUBLIC}\n{SECRET}\n",
        f"{PUBLIC} {SECRET}",
        f" {PUBLIC}",
        PUBLIC + "x" * 256,
        b"whpk_\xff",
        "",
    ],
)
async def test_only_a_public_key_may_be_readable_by_others(files: Kept, content: str | bytes) -> None:
    """A file that others may read is refused unless it has exactly one public key; its content is not shown."""
    ended = await files.verified(*NOW, "--json", secret_file=files.write("open", content, mode=0o644))

    assert (5, "secret_file") == (ended.code, ended.json["error"]["field"])
    assert "chmod 600" in ended.json["error"]["message"]


@pytest.mark.req("SEC-20")
async def test_an_unusable_key_is_refused_with_its_reason(files: Kept) -> None:
    """A private key and a malformed public key are refused with the reason, not as a wrong signature."""
    private = await files.verified(*NOW, secret_file=files.write("private", PRIVATE, mode=0o600))
    cut = await files.verified(*NOW, secret_file=files.write("cut", PUBLIC[:-4]))

    assert (1, 1) == (private.code, cut.code)
    assert "secret 1 is a private key" in private.out
    assert "use the public key (whpk_) of the endpoint" in private.out
    assert "secret 1 is not a public key" in cut.out


async def test_an_old_request_exits_1_with_its_age(files: Kept) -> None:
    """An old request exits 1 with its age, and says that its signature matches; `--tolerance` accepts it."""
    ended = await files.verified("--at", str(AT + 400), "--json")
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
    shown = await files.verified("--at", str(AT + 400))
    assert 1 == shown.code
    assert shown.out.startswith(
        "verified  NO: the signature matches, but the request is 400 s old: 300 s are allowed\n"
    )
    ahead = await files.verified("--at", str(AT - 400))
    assert ahead.out.endswith(f"time      {AT}, 400 s ahead\n")
    far = (await files.verified("--at", "0", "--tolerance", "1000000")).out
    assert f"the request is {AT} s ahead of this clock: 1000000 s are allowed\n" in far
    assert far.endswith(f"time      {AT}, {AT} s ahead\n")
    assert f" {AT}, 400.5 s old\n" in (await files.verified("--at", str(AT + 400.5))).out
    assert 0 == (await files.verified("--at", str(AT + 400), "--tolerance", "400")).code


async def test_the_default_time_is_now(files: Kept) -> None:
    """Without `--at` the current time counts, so a request of 2021 is years old."""
    ended = await files.verified("--json")

    assert (1, "outside_tolerance") == (ended.code, ended.json["reason"])
    assert ended.json["age_seconds"] > 5 * 365 * 86_400 - 300


@pytest.mark.parametrize(
    ("headers", "reason", "stated"),
    [
        ({}, "missing_header", (None, None, None)),
        (standard(id=None), "missing_header", ("standard", None, AT)),
        (standard(timestamp="soon"), "malformed_header", ("standard", KNOWN["id"], None)),
        (standard(id="a.b\x1b[2J"), "malformed_header", ("standard", "a.b\x1b[2J", AT)),
        (standard(signature="v1,AAAA"), "no_matching_signature", ("standard", KNOWN["id"], AT)),
        (x_webhook(signature="sha256="), "no_matching_signature", ("x-webhook", DELIVERY, AT)),
    ],
)
async def test_an_invalid_request_exits_1_with_its_reason(
    files: Kept, headers: dict[str, str], reason: str, stated: tuple[str | None, str | None, int | None]
) -> None:
    """The command exits 1 with the reason and the request's own values, with control characters escaped."""
    path = files.write("others", json.dumps(headers))
    ended = await files.verified(*NOW, "--json", headers_file=path)
    shown = await files.verified(*NOW, headers_file=path)

    assert (1, False, reason) == (ended.code, ended.json["verified"], ended.json["reason"])
    assert stated == (ended.json["scheme"], ended.json["delivery_id"], ended.json["timestamp"])
    assert 1 == shown.code
    assert shown.out.startswith("verified  NO: ")
    assert "\x1b" not in ended.out + shown.out


async def test_a_wrong_secret_does_not_match(files: Kept) -> None:
    """A wrong secret does not match, and an invalid secret is a separate reason."""
    for text, reason in (
        (OTHER_SECRET, "no_matching_signature"),
        ("", "unusable_secret"),
        ("whsk_x", "unusable_secret"),
    ):
        ended = await files.verified(*NOW, "--json", secret_file=files.write("other", text, mode=0o600))
        assert (1, reason) == (ended.code, ended.json["reason"])


async def test_an_added_newline_breaks_the_signature(files: Kept) -> None:
    """One newline added by an editor makes the signature wrong."""
    ended = await files.verified(*NOW, "--json", body_file=files.write("other", BODY + b"\n"))

    assert (1, "no_matching_signature") == (ended.code, ended.json["reason"])


@pytest.mark.parametrize(
    ("first", "after"),
    [
        ("POST /hook?a=b HTTP/1.1\r\n", "\r\nwebhook-id: of the body\r\n"),
        ("HTTP/1.1 200 OK\r\n", "\r\n"),
        ("HTTP/2 200 \n", "\n"),
        ("", ""),
    ],
)
async def test_raw_http_headers_are_read(files: Kept, first: str, after: str) -> None:
    """A first line of HTTP is ignored, and nothing after the empty line is a header."""
    lines = "".join(f"{name.title()}:\t {value} \r\n" for name, value in standard().items())
    ended = await files.verified(*NOW, headers_file=files.write("dump", f"{first}Host: a\r\n{lines}{after}"))

    assert (0, "") == (ended.code, ended.err)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b" \n"])
async def test_headers_are_read_from_json(files: Kept, mark: bytes) -> None:
    """A JSON object is accepted, with a string or a list of strings for each name."""
    headers = {name: [value] for name, value in standard().items()} | {"host": "a"}
    ended = await files.verified(*NOW, headers_file=files.write("json", mark + json.dumps(headers).encode()))

    assert (0, "") == (ended.code, ended.err)


async def test_values_of_a_repeated_header_are_joined(files: Kept) -> None:
    """Values of one name are joined, as servers do: two ids are an invalid one."""
    twice = "".join(f"{name}: {value}\n" for name, value in standard().items()) + "Webhook-Id: other\n"
    as_lines = await files.verified(*NOW, "--json", headers_file=files.write("lines", twice))
    as_json = files.write("json", json.dumps(standard() | {"Webhook-Id": "other"}))
    in_json = await files.verified(*NOW, "--json", headers_file=as_json)

    for ended in (as_lines, in_json):
        assert (1, "malformed_header") == (ended.code, ended.json["reason"])


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    "content",
    ["webhook-id", ": value\n", "a: b\n c: d\n", "{", '{"a": 1}', '{"a": [1]}', "{}{}", '{"a":' + "[" * 9_000],
)
async def test_text_without_headers_is_refused(files: Kept, content: str) -> None:
    """Text that is neither header lines nor an object of strings exits 2 and names the option."""
    ended = await files.verified("--json", headers_file=files.write("others", content))

    assert (2, "headers_file") == (ended.code, ended.json["error"]["field"])


@pytest.mark.req("OPS-04", part="errors")
async def test_an_unusable_file_names_its_option(files: Kept) -> None:
    """An absent file exits 3, a secret that others may read 5, a too large file 2; each names its option."""
    absent = str(files.folder / "absent")
    for option in ("secret_file", "headers_file", "body_file"):
        ended = await files.verified("--json", **{option: absent})
        assert (2, option) == (ended.code, ended.json["error"]["field"])
    ended = await files.verified("--json", secret_file=files.write("open", SECRET, mode=0o640))
    assert (5, "secret_file") == (ended.code, ended.json["error"]["field"])
    for option, most in (("headers_file", 65_536), ("body_file", MAX_BODY_BYTES)):
        ended = await files.verified("--json", **{option: files.write("large", "x" * (most + 1))})
        assert (2, option) == (ended.code, ended.json["error"]["field"])
        assert str(most) in ended.json["error"]["message"]


async def test_one_file_may_be_standard_input(files: Kept) -> None:
    """One of the files may be standard input, and only one."""
    contents = {
        "--secret-file": SECRET.encode(),
        "--headers-file": json.dumps(standard()).encode(),
        "--body-file": BODY,
    }
    paths = {"--secret-file": files.secret, "--headers-file": files.headers, "--body-file": files.body}
    for option, content in contents.items():
        arguments = [part for pair in (paths | {option: "-"}).items() for part in pair]
        assert 0 == (await fed(content, "verify", *arguments, *NOW)).code
    twice = await files.verified("--json", headers_file="-", body_file="-")
    assert 2 == twice.code
    assert "once" in twice.json["error"]["message"]


async def test_help_has_an_example() -> None:
    """The help has an example."""
    assert "Example: hookseal verify" in (await hookseal("verify", "--help")).out
