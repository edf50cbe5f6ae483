"""What a receiver accepts and why it refuses: the cases of the public libraries, and those that they leave open."""

import base64
import hmac
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from hookseal.ground.wire import Scheme
from hookseal.receiver import (
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    OutsideTolerance,
    UntrimmedSecret,
    UnusableSecret,
    VerificationError,
    Verified,
    verify,
)
from tests.receiver.requests import (
    AT,
    BODY,
    DELIVERY,
    KNOWN,
    OTHER_SECRET,
    SECRET,
    X_KNOWN,
    X_SECRET,
    standard,
    svix,
    x_webhook,
)
from tests.vectors.reading import vectors

pytestmark = pytest.mark.req("SEC-20", part="hmac")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
IMPORT = """
import json, sys
from hookseal.receiver import verify
body, headers, secrets, now = json.load(sys.stdin)
verify(body.encode(), headers, secrets, now=now)
print(sorted({"aiohttp", "arq", "asyncpg", "cryptography", "pydantic", "redis", "structlog"} & set(sys.modules)))
"""


@pytest.mark.parametrize("case", vectors("standard_v1.json")["tests"], ids=lambda case: case["comment"])
def test_known_standard_signatures_verify(case: dict[str, Any]) -> None:
    """Signatures of the public libraries are verified, for any bytes of a body."""
    verified = verify(bytes.fromhex(case["body"]), standard(case), [case["secret"]], now=case["timestamp"])

    assert (
        Verified(delivery_id=case["id"], timestamp=case["timestamp"], scheme=Scheme.STANDARD, secret_number=1)
        == verified
    )


@pytest.mark.parametrize("case", vectors("x_webhook.json")["tests"], ids=lambda case: case["comment"])
def test_known_x_webhook_signatures_verify(case: dict[str, Any]) -> None:
    verified = verify(bytes.fromhex(case["body"]), x_webhook(case), [case["secret"]], now=case["timestamp"])

    assert (
        Verified(delivery_id=DELIVERY, timestamp=case["timestamp"], scheme=Scheme.X_WEBHOOK, secret_number=1)
        == verified
    )


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="."), min_size=1, max_size=64),
    st.integers(0, 2**37),
    st.text(),
    st.binary(min_size=24, max_size=64),
)
def test_the_public_librarys_signatures_verify(delivery: str, at: int, body: str, key: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    signature = Webhook(secret).sign(delivery, EPOCH + timedelta(seconds=at), body)
    headers = {"webhook-id": delivery, "webhook-timestamp": str(at), "webhook-signature": signature}

    assert delivery == verify(body.encode(), headers, [secret], now=at, tolerance_seconds=0).delivery_id


@given(
    st.dictionaries(st.sampled_from([*standard(), *x_webhook(), "X-Webhook-Signature-Current"]), st.text()),
    st.lists(st.text(min_size=1)),
    st.binary(),
)
def test_arbitrary_headers_are_refused(headers: dict[str, str], secrets: list[str], body: bytes) -> None:
    with pytest.raises(VerificationError):
        verify(body, headers, secrets, now=AT)


@pytest.mark.parametrize("spell", [str.upper, str.title, str.lower])
@pytest.mark.parametrize(("headers", "secret"), [(standard(), SECRET), (x_webhook(), X_SECRET)])
def test_the_case_of_header_names_does_not_matter(headers: dict[str, str], secret: str, spell: Any) -> None:
    spelled = {spell(name): value for name, value in headers.items()} | {"Host": "a", "HOST": "b"}

    assert AT == verify(BODY, spelled, [secret], now=AT).timestamp


@pytest.mark.parametrize(("headers", "secret"), [(standard(), SECRET), (x_webhook(), X_SECRET)])
def test_each_scheme_needs_three_headers(headers: dict[str, str], secret: str) -> None:
    assert 3 == len(headers)
    for name in headers:
        with pytest.raises(MissingHeader, match=name):
            verify(BODY, {other: value for other, value in headers.items() if other != name}, [secret], now=AT)


@pytest.mark.parametrize("headers", [standard() | {"Webhook-Id": "other"}, x_webhook() | {"X-WEBHOOK-SIGNATURE": ""}])
def test_a_repeated_header_is_refused(headers: dict[str, str]) -> None:
    """A header of the scheme that occurs twice is refused: other software might read the other one."""
    with pytest.raises(MalformedHeader, match="more than once"):
        verify(BODY, headers, [SECRET, X_SECRET], now=AT)


@pytest.mark.parametrize(
    "text",
    [
        *("hello", "", "-1", "+1614265330", "01614265330", "1614265330.0", "1_614_265_330", " 1614265330", "1e9"),
        *("١٦١٤٢٦٥٣٣٠", "1614265330\n", "9" * 5_000),  # what Python reads as a number
    ],
)
def test_another_form_of_time_is_refused(text: str) -> None:
    for headers, secret in ((standard(timestamp=text), SECRET), (x_webhook(timestamp=text), X_SECRET)):
        with pytest.raises(MalformedHeader, match="timestamp must be whole unix seconds"):
            verify(BODY, headers, [secret], now=AT)


@pytest.mark.parametrize("text", ["", "msg.1", "a b", "zoë", "a\n", "x" * 257])
def test_a_malformed_id_is_refused(text: str) -> None:
    """An id is visible ASCII without a dot, since a dot would make the signed bytes ambiguous."""
    for headers, secret in ((standard(id=text), SECRET), (x_webhook(delivery_id=text), X_SECRET)):
        with pytest.raises(MalformedHeader, match="without a dot"):
            verify(BODY, headers, [secret], now=AT)


def test_id_time_and_body_cannot_be_divided_differently() -> None:
    """A raw body that begins with a number and a dot cannot be presented under another id and time."""
    known: dict[str, Any] = KNOWN | {"id": f"{KNOWN['id']}.{AT}"}
    with pytest.raises(VerificationError):
        verify(b'{"test": 2432232314}', standard(known, timestamp="7"), [SECRET], now=7)


@pytest.mark.parametrize(
    ("seconds", "is_accepted"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)]
)
@pytest.mark.parametrize(("headers", "secret"), [(standard(), SECRET), (x_webhook(), X_SECRET)])
def test_the_signed_time_may_differ_by_300_seconds(
    headers: dict[str, str], secret: str, seconds: int, is_accepted: bool
) -> None:
    """A time may be 300 seconds from now in either direction, and not 301; the error says how old it is."""
    if is_accepted:
        assert AT == verify(BODY, headers, [secret], now=AT + seconds).timestamp
        return
    with pytest.raises(OutsideTolerance, match="301 s old" if seconds > 0 else "301 s ahead of this clock"):
        verify(BODY, headers, [secret], now=AT + seconds)


def test_the_default_is_the_clock_of_this_machine() -> None:
    """Without `now` a request of this moment verifies, and a known one of long ago is outside of the tolerance."""
    at = datetime.now(UTC)
    webhook = Webhook(SECRET)
    headers = standard(timestamp=str(int(at.timestamp())), signature=webhook.sign(KNOWN["id"], at, BODY.decode()))

    assert int(at.timestamp()) == verify(BODY, headers, [SECRET]).timestamp
    with pytest.raises(OutsideTolerance):
        verify(BODY, standard(), [SECRET])


def test_the_receiver_chooses_the_tolerance() -> None:
    assert AT == verify(BODY, standard(), [SECRET], now=AT + 86_400, tolerance_seconds=86_400).timestamp
    for age, tolerance in ((1, 0), (0.5, 0.25), (0, -1)):
        with pytest.raises(OutsideTolerance):
            verify(BODY, standard(), [SECRET], now=AT + age, tolerance_seconds=tolerance)


@pytest.mark.parametrize(("now", "tolerance"), [(nan, 300), (inf, 300), (-inf, 300), (AT, nan)])
def test_nan_and_infinity_are_refused(now: float, tolerance: float) -> None:
    with pytest.raises(OutsideTolerance):
        verify(BODY, standard(), [SECRET], now=now, tolerance_seconds=tolerance)


@pytest.mark.parametrize("hours", [-5, 0, 7, 13])
def test_now_needs_a_time_zone(hours: int) -> None:
    now = datetime.fromtimestamp(AT, UTC).astimezone(timezone(timedelta(hours=hours)))

    assert AT == verify(BODY, standard(), [SECRET], now=now, tolerance_seconds=0).timestamp
    with pytest.raises(ValueError, match="time zone"):
        verify(BODY, standard(), [SECRET], now=now.replace(tzinfo=None))


@pytest.mark.parametrize(
    "signature",
    [
        "",
        " ",
        "v1,",
        KNOWN["signature"][:8],
        KNOWN["signature"][:-1],
        KNOWN["signature"] + "=",
        KNOWN["signature"].removeprefix("v1,"),
        KNOWN["signature"].replace("v1,", "v2,"),
        KNOWN["signature"].replace("v1,", "v1a,"),
        KNOWN["signature"].replace("v1,", "V1,"),
        KNOWN["signature"].replace("v1,", "v1, "),
        KNOWN["signature"].swapcase(),
        "no_comma v1 ,",
        "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v1,v48jdbgvh29KJz2Qc+ghw8G6vG3nAKnujWBg8oM/62A=",
        "v1,Zoë \udcff",
    ],
)
def test_a_malformed_standard_signature_does_not_match(signature: str) -> None:
    with pytest.raises(NoMatchingSignature):
        verify(BODY, standard(signature=signature), [SECRET], now=AT)


@pytest.mark.parametrize(
    "before", ["v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=", "v1a,AAAA", "v2,AAAA", "no_comma", "v1", "", "v1,é"]
)
def test_one_matching_signature_of_a_list_is_enough(before: str) -> None:
    """One matching signature of a list is enough; entries without a comma or of another version are ignored."""
    for signature in (f"{before} {KNOWN['signature']}", f"{KNOWN['signature']} {before}"):
        assert AT == verify(BODY, standard(signature=signature), [SECRET], now=AT).timestamp


@pytest.mark.parametrize(
    "signature",
    ["", "sha256=", X_KNOWN["signature"][:-1], X_KNOWN["signature"].removeprefix("sha256="), "sha256=é", "sha1=00"],
)
def test_a_malformed_x_webhook_signature_does_not_match(signature: str) -> None:
    with pytest.raises(NoMatchingSignature):
        verify(BODY, x_webhook(signature=signature), [X_SECRET], now=AT)


@pytest.mark.parametrize("name", ["signature", "signature_current", "signature_previous"])
def test_any_of_the_three_headers_may_match(name: str) -> None:
    wrong = "sha256=" + "0" * 64
    others = dict.fromkeys(("signature", "signature_current", "signature_previous"), wrong)
    alone: dict[str, str | None] = {"signature": None, name: X_KNOWN["signature"]}

    assert AT == verify(BODY, x_webhook(**(others | {name: X_KNOWN["signature"]})), [X_SECRET], now=AT).timestamp
    assert AT == verify(BODY, x_webhook(**alone), [X_SECRET], now=AT).timestamp
    with pytest.raises(NoMatchingSignature):
        verify(BODY, x_webhook(**others), [X_SECRET], now=AT)


@pytest.mark.parametrize(("headers", "secret"), [(standard(), SECRET), (x_webhook(), X_SECRET)])
def test_any_of_several_secrets_may_match(headers: dict[str, str], secret: str) -> None:
    """Any of several secrets may have signed, and its number is returned, counted from 1."""
    assert 1 == verify(BODY, headers, [secret, OTHER_SECRET], now=AT).secret_number
    assert 2 == verify(BODY, headers, [OTHER_SECRET, secret], now=AT).secret_number
    with pytest.raises(NoMatchingSignature):
        verify(BODY, headers, [OTHER_SECRET], now=AT)


@pytest.mark.parametrize(("headers", "secret"), [(standard(), SECRET), (x_webhook(), X_SECRET)])
def test_an_altered_body_does_not_match(headers: dict[str, str], secret: str) -> None:
    """Another body, even by one bit, an added newline or a missing byte, does not match."""
    flipped = [bytes([*BODY[:n], BODY[n] ^ 1 << bit, *BODY[n + 1 :]]) for n in range(len(BODY)) for bit in range(8)]
    for body in (*flipped, BODY + b"\n", BODY[:-1], b""):
        with pytest.raises(NoMatchingSignature):
            verify(body, headers, [secret], now=AT)


def test_another_time_or_id_does_not_match() -> None:
    for headers in (standard(timestamp=str(AT + 1)), standard(id="msg_other"), x_webhook(timestamp=str(AT + 1))):
        with pytest.raises(NoMatchingSignature):
            verify(BODY, headers, [SECRET, X_SECRET], now=AT)
    assert "other" == verify(BODY, x_webhook(delivery_id="other"), [X_SECRET], now=AT).delivery_id


def test_prefix_and_padding_are_optional() -> None:
    for secret in (SECRET.removeprefix("whsec_"), SECRET + "=", SECRET):
        assert AT == verify(BODY, standard(), [secret], now=AT).timestamp
    unpadded, signature = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr", "v1,yK2tMbA6BHPrMEJ1lLv7UlJJbgFoqGenJkiajZ29evg="
    assert AT == verify(BODY, standard(signature=signature), [unpadded], now=AT).timestamp


@pytest.mark.req("SEC-20")
@pytest.mark.parametrize(
    ("secret", "signature"),
    [("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "v1,LVOXivKoo4FWasi/IaHvzhE/u+7/cu2AME+zS/nXqzk="), ("AA==", "v1,AAAA")],
)
def test_a_short_key_is_refused(secret: str, signature: str) -> None:
    """A key of less than 24 bytes is refused even if it made the signature, since it can be guessed."""
    with pytest.raises(UnusableSecret):
        verify(BODY, standard(signature=signature), [secret], now=AT)


@pytest.mark.parametrize("secrets", [[], [""], ["whsec_"], [" "], ["whsec_ \n"], [SECRET, ""], [X_SECRET, "whsec_"]])
def test_an_empty_secret_verifies_nothing(secrets: list[str]) -> None:
    for headers in (standard(), x_webhook()):
        with pytest.raises(UnusableSecret):
            verify(BODY, headers, secrets, now=AT)


@pytest.mark.parametrize("padded", ["{}\n", "{}\r\n", " {}", "\t{}", "{} "], ids=repr)
@pytest.mark.parametrize(("headers", "secret"), [(standard(), SECRET), (x_webhook(), X_SECRET)])
def test_white_space_around_a_secret_is_named(headers: dict[str, str], secret: str, padded: str) -> None:
    with pytest.raises(UntrimmedSecret, match=r"secret 2 begins or ends with white space.*strip it") as caught:
        verify(BODY, headers, [OTHER_SECRET, padded.format(secret)], now=AT)

    assert isinstance(caught.value, UnusableSecret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("secret", [" sixteen bytes or more", "sixteen bytes or more\n"])
def test_white_space_may_be_part_of_an_x_webhook_secret(secret: str) -> None:
    signature = hmac.new(secret.encode(), b"%d.%b" % (AT, BODY), "sha256").hexdigest()

    assert Scheme.X_WEBHOOK is verify(BODY, x_webhook(signature=f"sha256={signature}"), [secret], now=AT).scheme


@pytest.mark.parametrize("secret", ["not base64!", "zoë", "whsec_%", "whsec_====", "\udcff" * 24])
def test_a_secret_of_another_form_is_skipped(secret: str) -> None:
    """A text that is not base64 cannot sign `standard`; it is skipped if another secret matches."""
    with pytest.raises(UnusableSecret):
        verify(BODY, standard(), [secret], now=AT)
    assert 2 == verify(BODY, standard(), [secret, SECRET], now=AT).secret_number
    with pytest.raises(NoMatchingSignature):
        verify(BODY, x_webhook(), [secret], now=AT)


def test_a_text_in_place_of_a_list_is_an_error() -> None:
    with pytest.raises(TypeError, match="list of secrets"):
        verify(BODY, standard(), SECRET, now=AT)


@pytest.mark.parametrize("headers", [{}, standard(), x_webhook()])
@pytest.mark.parametrize("body", [BODY.decode(), json.loads(BODY), None])
def test_a_body_that_is_not_bytes_is_an_error(headers: dict[str, str], body: Any) -> None:
    """A body that is text, or was parsed, is an error of the program and no refusal of the request."""
    with pytest.raises(TypeError, match=f"^body must be the raw bytes of the request, not {type(body).__name__}$"):
        verify(body, headers, [SECRET], now=AT)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_body_may_be_in_a_buffer(kind: Any) -> None:
    for headers in (standard(), x_webhook()):
        assert AT == verify(kind(BODY), headers, [SECRET, X_SECRET], now=AT).timestamp


def test_either_secret_verifies_a_request_in_both_schemes() -> None:
    """The holder of either secret accepts a request that is signed in both schemes; `standard` comes first."""
    both = standard() | x_webhook()

    assert Scheme.STANDARD == verify(BODY, both, [X_SECRET, SECRET], now=AT).scheme
    assert Scheme.X_WEBHOOK == verify(BODY, both, [X_SECRET], now=AT).scheme
    assert Scheme.X_WEBHOOK == verify(BODY, both, [OTHER_SECRET, X_SECRET], now=AT).scheme


@pytest.mark.req("DEL-21", part="svix")
@pytest.mark.parametrize("file", ["standard_v1.json", "standard_v1a.json"])
def test_the_names_of_svix_verify_as_those_of_standard(file: str) -> None:
    """Each known signature, with HMAC and with ed25519; a request with both names is one of `standard`."""
    for case in vectors(file)["tests"]:
        known, body = case.get("public_key") or case["secret"], bytes.fromhex(case["body"])
        assert Verified(
            delivery_id=case["id"], timestamp=case["timestamp"], scheme=Scheme.SVIX, secret_number=1
        ) == verify(body, svix(case), [known], now=case["timestamp"])
        both = svix(case) | standard(case)
        assert Scheme.STANDARD is verify(body, both, [known], now=case["timestamp"]).scheme
        with pytest.raises(NoMatchingSignature):
            verify(body + b" ", svix(case), [known], now=case["timestamp"])


def test_the_error_is_that_of_the_scheme_that_went_further() -> None:
    both = standard() | x_webhook()

    with pytest.raises(OutsideTolerance):
        verify(BODY, both, [X_SECRET], now=AT + 301)
    with pytest.raises(OutsideTolerance):
        verify(BODY, both, [SECRET], now=AT + 301)
    with pytest.raises(NoMatchingSignature):
        verify(BODY, both, ["not the secret, and no base64"], now=AT)
    with pytest.raises(MalformedHeader, match=r"^webhook-id"):
        verify(BODY, both | {"webhook-id": "a.b", "x-webhook-delivery-id": "a.b"}, [SECRET], now=AT)


@pytest.mark.req("SEC-15", part="tracebacks")
def test_no_error_has_a_secret() -> None:
    """An error contains no secret and no signature, and has a one-word reason and a message."""
    refusals = []
    for headers, secrets in (
        ({}, [SECRET]),
        (standard(timestamp=SECRET), [SECRET]),
        (standard(), [OTHER_SECRET]),
        (standard(), ["whsec_%secret%"]),
        (standard(), ["whsk_secret"]),
        (standard(timestamp=str(AT)), [SECRET]),
    ):
        with pytest.raises(VerificationError) as caught:
            verify(BODY, headers, secrets, now=AT + 1_000)
        refusals.append(caught.value)

    shown = "".join(f"{refusal!s} {refusal!r} {refusal.__cause__!r} {refusal.__context__!r}" for refusal in refusals)
    assert not any(text in shown for text in (SECRET, OTHER_SECRET, "secret%", "whsk_", KNOWN["signature"]))
    assert [
        "missing_header",
        "malformed_header",
        "no_matching_signature",
        "unusable_secret",
        "unusable_secret",
        "outside_tolerance",
    ] == [refusal.reason for refusal in refusals]
    assert {1} == {refusal.exit_code for refusal in refusals}


@pytest.mark.req("SEC-20")
@pytest.mark.parametrize(("headers", "secret"), [(standard(), SECRET), (x_webhook(), X_SECRET)])
def test_signatures_are_compared_in_constant_time(
    headers: dict[str, str], secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hmac.compare_digest` of both whole signatures decides: if it returns false, nothing verifies."""
    compared: list[tuple[bytes, bytes]] = []

    def unequal(expected: bytes, candidate: bytes) -> bool:
        compared.append((expected, candidate))
        return False

    monkeypatch.setattr(hmac, "compare_digest", unequal)
    with pytest.raises(NoMatchingSignature):
        verify(BODY, headers, [OTHER_SECRET, secret], now=AT)

    given = next(value for name, value in headers.items() if name.endswith("signature")).encode()
    assert [given, given] == [candidate for _, candidate in compared]
    assert given == compared[1][0]


@pytest.mark.parametrize(("headers", "secret"), [(standard(), SECRET), (x_webhook(), X_SECRET)])
def test_verifying_hmac_loads_no_library(headers: dict[str, str], secret: str) -> None:
    """A receiver that verifies HMAC loads no client of a database, a queue or the web, and no cipher library."""
    request = json.dumps([BODY.decode(), headers, [secret], AT])
    run = subprocess.run([sys.executable, "-c", IMPORT], input=request, capture_output=True, text=True, check=False)

    assert ("[]\n", "") == (run.stdout, run.stderr)
