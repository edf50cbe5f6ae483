"""Sealing: the envelope of a record, its halves outside PostgreSQL, master keys, and the key that seals."""

import asyncio
import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from hookseal import errors
from hookseal.errors import (
    ConfigError,
    ContextMismatch,
    Defect,
    KeyRetired,
    KeyUnknown,
    Malformed,
    RecordMalformed,
    RecordRefused,
    RecordTampered,
    SecretTampered,
)
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Pool
from hookseal.secrets.core import envelope
from hookseal.secrets.core.envelope import (
    HEAD_BYTES,
    OVERHEAD_BYTES,
    _Level,
    _open_level,
    _seal_with,
    key_id_of,
    open_sealed,
    rewrapped,
    seal,
)
from hookseal.secrets.core.halves import Halves, divide, divide_again, join
from hookseal.secrets.core.keyring import KeyRing, MasterKey, require_key_id
from hookseal.secrets.core.material import MAX_BYTES, SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext
from hookseal.secrets.key import active_key
from hookseal.secrets.key import keys as moves
from hookseal.secrets.store.postgres import PostgresStore
from tests.secrets.samples import (
    CONTEXT,
    FIRST,
    NAME,
    OTHER_SECRET,
    OTHER_TENANT,
    RING,
    SECOND,
    SECRET,
    TENANT,
    THIRD,
    master_key,
    ref,
    register,
)
from tests.secrets.test_values import CONTEXTS
from tests.vectors.reading import vectors
from tests.worker.waiting import eventually

SEALED = seal(RING, SECRET, CONTEXT)
HEAD, BODY = SEALED[:HEAD_BYTES], SEALED[HEAD_BYTES:]
BOTH = KeyRing(SECOND, (FIRST,))
OTHERS = [
    SecretContext(tenant=OTHER_TENANT, name=NAME, version=1, purpose=Purpose.WEBHOOK_SIGNING),
    SecretContext(tenant=TENANT, name=NAME[:-1], version=1, purpose=Purpose.WEBHOOK_SIGNING),
    SecretContext(tenant=TENANT, name=NAME, version=2, purpose=Purpose.WEBHOOK_SIGNING),
    SecretContext(tenant=TENANT, name=NAME, version=1, purpose=Purpose.INTEGRITY),
    SecretContext(tenant=TENANT, name=TENANT + NAME, version=1, purpose=Purpose.WEBHOOK_SIGNING),
]
KNOWN = vectors("envelope.json")
COLLISIONS = vectors("aes256gcm_two_key_collision.json")["tests"]
# The first byte of each field, and the error for a flipped bit in it (see the table in docs/CANONICAL/SECRETS.md).
REFUSED_FROM = [
    (0, RecordMalformed),  # version and suite
    (2, KeyUnknown),  # key id
    (10, ContextMismatch),  # wrap salt and commitment
    (74, RecordTampered),  # wrap nonce and the wrapped data key
    (134, ContextMismatch),  # data salt and commitment
    (198, RecordTampered),  # data nonce and the secret
]


def _ring(held: list[str], retired: list[str]) -> KeyRing:
    sealing, *opening = (MasterKey(SecretMaterial(bytes.fromhex(key))) for key in held)
    return KeyRing(
        sealing, tuple(opening), retired=[MasterKey(SecretMaterial(bytes.fromhex(key))).key_id for key in retired]
    )


def _flipped(whole: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield each place, each of its bits, and the bytes with that bit flipped."""
    for place in range(len(whole)):
        for bit in range(8):
            yield place, bit, whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]


def _refusal_at(place: int) -> type[RecordRefused]:
    return [refusal for start, refusal in REFUSED_FROM if start <= place][-1]


@pytest.mark.req("SEC-03")
@given(st.binary(min_size=1, max_size=300), CONTEXTS)
def test_a_sealed_record_opens(secret: bytes, context: SecretContext) -> None:
    sealed = seal(RING, SecretMaterial(secret), context)

    assert SecretMaterial(secret) == open_sealed(RING, sealed, context)
    assert len(secret) + OVERHEAD_BYTES == len(sealed)
    assert FIRST.key_id == key_id_of(sealed)


@pytest.mark.req("SEC-03")
def test_a_record_contains_nothing_of_the_secret_or_the_keys() -> None:
    other = seal(RING, SECRET, CONTEXT)

    assert SECRET.reveal() not in SEALED
    assert SEALED[:10] == other[:10]
    assert not any(SEALED[at : at + 12] in other for at in range(10, len(SEALED) - 12))


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize("case", KNOWN["opened"], ids=lambda case: case["comment"])
def test_records_equal_a_second_implementation(case: dict[str, Any]) -> None:
    context, secret = SecretContext(**case["context"]), SecretMaterial(bytes.fromhex(case["secret"]))
    ring, drawn = _ring([case["master_key"]], []), [bytes.fromhex(value) for value in case["random"].values()]
    chance, asked = iter(drawn), list[int]()

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return next(chance)

    assert case["sealed"] == _seal_with(ring, secret, context, random_bytes=random_bytes).hex()
    assert [len(value) for value in drawn] == asked
    assert secret == open_sealed(ring, bytes.fromhex(case["sealed"]), context)


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize("case", KNOWN["refused"], ids=lambda case: case["comment"])
def test_each_known_invalid_record_has_its_refusal(case: dict[str, Any]) -> None:
    ring = _ring(case["held"], case["retired"])

    with pytest.raises(RecordRefused) as caught:
        open_sealed(ring, bytes.fromhex(case["sealed"]), SecretContext(**case["context"]))

    assert getattr(errors, case["error"]) is type(caught.value)


@pytest.mark.req("SEC-03")
def test_every_flipped_bit_is_refused() -> None:
    for place, bit, flipped in _flipped(SEALED):
        with pytest.raises(RecordRefused) as caught:
            open_sealed(RING, flipped, CONTEXT)
        assert _refusal_at(place) is type(caught.value), f"bit {bit} of byte {place}"


@pytest.mark.req("SEC-03")
def test_every_truncation_is_refused() -> None:
    """A truncated record is malformed if it is too short for any secret, and otherwise tampered with."""
    for length in range(len(SEALED)):
        with pytest.raises(RecordRefused) as caught:
            open_sealed(RING, SEALED[:length], CONTEXT)
        assert (RecordMalformed if length <= OVERHEAD_BYTES else RecordTampered) is type(caught.value)


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize("extra", [b"\x00", b"\xff", SEALED])
def test_added_bytes_are_refused(extra: bytes) -> None:
    with pytest.raises(RecordTampered):
        open_sealed(RING, SEALED + extra, CONTEXT)
    with pytest.raises(RecordRefused):
        open_sealed(RING, extra + SEALED, CONTEXT)


@pytest.mark.req("SEC-03")
def test_no_two_records_can_be_spliced() -> None:
    other = seal(RING, OTHER_SECRET, CONTEXT)
    for border in (42, 74, 86, 134, 166, 198, 210, len(SEALED) - 16):
        for one, two in permutations((SEALED, other)):
            with pytest.raises((ContextMismatch, RecordTampered)):
                open_sealed(RING, one[:border] + two[border:], CONTEXT)


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-08")
@pytest.mark.parametrize("context", OTHERS)
def test_a_record_opens_in_its_own_context_only(context: SecretContext) -> None:
    with pytest.raises(ContextMismatch):
        open_sealed(RING, SEALED, context)


@pytest.mark.req("SEC-03")
@given(CONTEXTS, CONTEXTS)
@settings(max_examples=50)
def test_no_two_contexts_open_each_other(one: SecretContext, other: SecretContext) -> None:
    sealed = seal(RING, SECRET, one)
    if one == other:
        assert SECRET == open_sealed(RING, sealed, other)
    else:
        with pytest.raises(ContextMismatch):
            open_sealed(RING, sealed, other)


@pytest.mark.req("SEC-03")
def test_missing_and_retired_keys_have_different_errors() -> None:
    assert SECRET == open_sealed(KeyRing(SECOND, (FIRST,)), SEALED, CONTEXT)
    with pytest.raises(KeyUnknown):
        open_sealed(KeyRing(SECOND), SEALED, CONTEXT)
    with pytest.raises(KeyRetired):
        open_sealed(KeyRing(SECOND, (FIRST,), retired=[FIRST.key_id]), SEALED, CONTEXT)


@pytest.mark.req("SEC-03")
def test_a_record_is_opened_only_with_the_key_that_it_names() -> None:
    renamed = SEALED[:2] + bytes.fromhex(SECOND.key_id) + SEALED[10:]

    with pytest.raises(ContextMismatch):
        open_sealed(KeyRing(FIRST, (SECOND,)), renamed, CONTEXT)


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize("case", COLLISIONS, ids=lambda case: f"case {case['tcId']}")
@pytest.mark.parametrize(("right", "wrong"), [("1", "2"), ("2", "1")])
def test_a_two_key_collision_opens_only_with_the_committed_key(case: dict[str, str], right: str, wrong: str) -> None:
    nonce, ciphertext, associated = (bytes.fromhex(case[name]) for name in ("iv", "ct", "aad"))
    ciphertext += bytes.fromhex(case["tag"])
    keys = {n: bytes.fromhex(case[f"key{n}"]) for n in "12"}
    commitments = {"1": b"\x01" * 32, "2": b"\x02" * 32}
    level = _Level(salt=bytes(32), commit=commitments[right], nonce=nonce, ciphertext=ciphertext)

    assert case[f"msg{wrong}"] == AESGCM(keys[wrong]).decrypt(nonce, ciphertext, associated).hex()
    assert case[f"msg{right}"] == _open_level(keys[right] + commitments[right], level, associated).hex()
    with pytest.raises(ContextMismatch):
        _open_level(keys[wrong] + commitments[wrong], level, associated)


@pytest.mark.req("SEC-03")
def test_different_keys_have_different_commitments() -> None:
    same = bytes(range(32))
    first = _seal_with(KeyRing(FIRST), SECRET, CONTEXT, random_bytes=lambda count: same[:count])
    second = _seal_with(KeyRing(SECOND), SECRET, CONTEXT, random_bytes=lambda count: same[:count])
    third = _seal_with(KeyRing(FIRST), SECRET, CONTEXT, random_bytes=lambda count: same[::-1][:count])

    assert first[42:74] != second[42:74]
    assert first[166:198] != third[166:198]
    assert first[134:] == second[134:]  # the data level does not depend on the master key


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize("secret", [b"\x00", b"\xff\xfe\x00", b"s" * MAX_BYTES])
def test_a_secret_may_be_any_bytes_up_to_64_kib(secret: bytes) -> None:
    assert secret == open_sealed(RING, seal(RING, SecretMaterial(secret), CONTEXT), CONTEXT).reveal()


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize("secret", [b"", b"s" * (MAX_BYTES + 1)])
def test_an_empty_or_too_long_secret_is_not_sealed(secret: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        seal(RING, SecretMaterial(secret), CONTEXT)

    assert "secret" == caught.value.field


@pytest.mark.req("SEC-03")
def test_a_record_longer_than_any_secret_is_malformed() -> None:
    with pytest.raises(RecordMalformed):
        key_id_of(SEALED + bytes(MAX_BYTES))


@pytest.mark.req("SEC-03")
def test_every_refusal_has_its_own_definitive_error() -> None:
    refusals = {RecordMalformed, KeyUnknown, KeyRetired, ContextMismatch, RecordTampered}

    assert refusals == set(RecordRefused.__subclasses__())
    assert issubclass(RecordRefused, SecretTampered)
    assert 5 == len({refusal.code for refusal in refusals})


@pytest.mark.req("SEC-03")
def test_nonces_and_salts_are_never_repeated() -> None:
    fields = [slice(10, 42), slice(74, 86), slice(134, 166), slice(198, 210)]
    records = [seal(RING, SECRET, CONTEXT) for _ in range(500)]

    assert [500] * 4 == [len({record[field] for record in records}) for field in fields]


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
@given(st.binary(min_size=1, max_size=300), CONTEXTS)
@settings(max_examples=50)
def test_a_re_wrapped_record_opens_under_the_new_key_only(secret: bytes, context: SecretContext) -> None:
    sealed = seal(RING, SecretMaterial(secret), context)
    anew = rewrapped(BOTH, sealed[:HEAD_BYTES], context, of=FIRST.key_id) + sealed[HEAD_BYTES:]

    assert SecretMaterial(secret) == open_sealed(KeyRing(SECOND), anew, context)
    assert (SECOND.key_id, len(sealed)) == (key_id_of(anew), len(anew))
    with pytest.raises(KeyUnknown):
        open_sealed(RING, anew, context)


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
def test_a_re_wrap_reads_only_the_head() -> None:
    heads = [rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id) for _ in range(100)]

    assert [100] * 4 == [
        len({head[field] for head in heads}) for field in map(slice, (10, 42, 74, 86), (42, 74, 86, 134))
    ]
    assert {HEAD_BYTES} == {len(head) for head in heads}
    for head in heads:
        assert not any(HEAD[at : at + 12] in head for at in range(10, HEAD_BYTES - 12))
        assert SECRET == open_sealed(BOTH, head + BODY, CONTEXT)
    with pytest.raises(RecordMalformed):
        rewrapped(BOTH, SEALED, CONTEXT, of=FIRST.key_id)


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("context", OTHERS)
def test_a_re_wrap_in_another_context_is_refused(context: SecretContext) -> None:
    with pytest.raises(ContextMismatch):
        rewrapped(BOTH, HEAD, context, of=FIRST.key_id)


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
def test_every_flipped_bit_of_a_head_is_refused() -> None:
    for place, bit, flipped in _flipped(HEAD):
        with pytest.raises(RecordRefused) as caught:
            rewrapped(BOTH, flipped, CONTEXT, of=FIRST.key_id)
        expected = RecordTampered if _refusal_at(place) is KeyUnknown else _refusal_at(place)
        assert expected is type(caught.value), f"bit {bit} of byte {place}"


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
def test_a_head_of_another_length_is_refused() -> None:
    for head in (*(HEAD[:length] for length in range(HEAD_BYTES)), HEAD + b"\x00"):
        with pytest.raises(RecordMalformed):
            rewrapped(BOTH, head, CONTEXT, of=FIRST.key_id)


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
def test_a_head_is_re_wrapped_from_the_given_key_only() -> None:
    with pytest.raises(RecordTampered):
        rewrapped(KeyRing(THIRD, (FIRST, SECOND)), HEAD, CONTEXT, of=SECOND.key_id)
    with pytest.raises(KeyUnknown):
        rewrapped(KeyRing(SECOND), HEAD, CONTEXT, of=FIRST.key_id)
    with pytest.raises(KeyRetired):
        rewrapped(KeyRing(SECOND, (FIRST,), retired=[FIRST.key_id]), HEAD, CONTEXT, of=FIRST.key_id)
    renamed = HEAD[:2] + bytes.fromhex(SECOND.key_id) + HEAD[10:]
    with pytest.raises(ContextMismatch):
        rewrapped(KeyRing(THIRD, (FIRST, SECOND)), renamed, CONTEXT, of=SECOND.key_id)


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
def test_re_wrapped_records_cannot_be_spliced() -> None:
    other = seal(RING, OTHER_SECRET, CONTEXT)
    anew = rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id) + BODY
    again = rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id) + BODY

    assert SECRET == open_sealed(BOTH, again[:HEAD_BYTES] + anew[HEAD_BYTES:], CONTEXT)  # the same data key
    for one, two, borders in (
        (anew, other, (10, 42, 74, 86, 134, 166, 198, 210)),
        (other, anew, (10, 42, 74, 86, 134, 166, 198, 210)),
        (anew, SEALED, (10, 42, 74, 86)),
        (SEALED, anew, (10, 42, 74, 86)),
        (anew, again, (42, 74, 86)),
    ):
        for border in borders:
            with pytest.raises((ContextMismatch, RecordTampered)):
                open_sealed(BOTH, one[:border] + two[border:], CONTEXT)


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
def test_every_flipped_bit_of_a_new_head_is_refused() -> None:
    head = rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id)
    for place, bit, flipped in _flipped(head):
        with pytest.raises(RecordRefused) as caught:
            open_sealed(BOTH, flipped + BODY, CONTEXT)
        assert _refusal_at(place) is type(caught.value), f"bit {bit} of byte {place}"


@pytest.mark.req("SEC-03")
@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("fault", ["another data key", "another context", "another key"])
def test_a_wrong_re_wrap_is_an_error(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new head is opened before it is returned: if it does not give the same data key, an error is raised."""
    wrapped = envelope._wrapped

    def faulty(key: MasterKey, data_key: bytes, bound: bytes, *more: Any, **chance: Any) -> bytes:
        match fault:
            case "another data key":
                return wrapped(key, bytes(32), bound, *more, **chance)
            case "another context":
                return wrapped(key, data_key, bound + b"x", *more, **chance)
            case _:
                return wrapped(FIRST, data_key, bound, *more, **chance)

    monkeypatch.setattr(envelope, "_wrapped", faulty)
    with pytest.raises((Defect, ContextMismatch, RecordTampered)):
        rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id)


# The halves of a secret outside PostgreSQL: together they open in one context, and one alone is worthless.


def _drawn(length: int) -> bytes:
    return hashlib.shake_256(b"drawn").digest(length)


HALVES = divide(SECRET, CONTEXT, _drawn)


@pytest.mark.parametrize("material", [b"x", b"\x00\xff", b"s" * 65_536], ids=len)
def test_share_and_payload_give_the_secret(material: bytes) -> None:
    halves = divide(SecretMaterial(material), CONTEXT, _drawn)
    assert (len(material), 49) == (len(halves.payload), len(halves.share))
    assert material == join(halves, CONTEXT).reveal()


@pytest.mark.parametrize("size", [0, 65_537])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(Malformed) as caught:
        divide(SecretMaterial(b"s" * size), CONTEXT, _drawn)
    assert "secret" == caught.value.field


def test_the_payload_contains_nothing_of_the_secret() -> None:
    assert SECRET.reveal()[6:18] not in HALVES.payload
    assert HALVES.payload != divide(SECRET, CONTEXT, bytes).payload


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize(
    "context",
    [
        replace(CONTEXT, tenant=TenantId("bmce")),
        replace(CONTEXT, name="other"),
        replace(CONTEXT, version=2),
        replace(CONTEXT, purpose=Purpose.ENDPOINT_TLS),
    ],
    ids=["tenant", "name", "version", "purpose"],
)
def test_halves_open_only_in_their_own_context(context: object) -> None:
    with pytest.raises(SecretTampered, match="not what hookseal wrote there"):
        join(HALVES, context)  # type: ignore[arg-type]


@pytest.mark.req("SEC-03")
def test_every_altered_bit_is_refused() -> None:
    share, payload = HALVES
    flipped = [Halves(bad, payload) for *_, bad in _flipped(share)]
    flipped += [Halves(share, bad) for *_, bad in _flipped(payload)]
    for halves in flipped:
        with pytest.raises((SecretTampered, RecordMalformed)):
            join(halves, CONTEXT)
    for bad in (payload[:-1], payload + b"\x00", b""):
        with pytest.raises(SecretTampered):
            join(Halves(share, bad), CONTEXT)


@pytest.mark.parametrize("share", [b"", HALVES.share[:-1], HALVES.share + b"\x00", b"\x02" + HALVES.share[1:]], ids=len)
def test_a_share_of_another_format_is_refused(share: bytes) -> None:
    with pytest.raises(RecordMalformed):
        join(Halves(share, HALVES.payload), CONTEXT)
    with pytest.raises(RecordMalformed):
        divide_again(share, SECRET, CONTEXT)


def test_the_same_share_gives_the_same_payload() -> None:
    assert HALVES == divide_again(HALVES.share, SECRET, CONTEXT)


# Master keys: which texts are accepted, and how a key is selected.

KEY = bytes.fromhex("fbefbe00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4bff")
STANDARD = base64.b64encode(KEY).decode()
URL_SAFE = base64.urlsafe_b64encode(KEY).decode()


class _Impostor(MasterKey):
    """A key with the id of another key."""

    @property
    def key_id(self) -> str:
        return FIRST.key_id


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


@pytest.mark.req("SEC-04", part="keyring")
@pytest.mark.parametrize(
    "text", [STANDARD, URL_SAFE, STANDARD.rstrip("="), URL_SAFE.rstrip("="), f" \t{STANDARD}\r\n", f"\n{URL_SAFE}"]
)
def test_both_alphabets_are_accepted(text: str) -> None:
    assert "+" in STANDARD
    assert "-" in URL_SAFE
    assert MasterKey(SecretMaterial(KEY)).is_same_key(MasterKey.parse(text, variable="V"))


@pytest.mark.req("SEC-04", part="keyring")
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "not base64 at all",
        STANDARD[:20] + " " + STANDARD[20:],
        STANDARD + "=",
        STANDARD.replace("=", "=="),
        STANDARD[:-2] + "=",
        "=" + STANDARD,
        STANDARD.replace("+", "-", 1) + "/",
        URL_SAFE[:10] + "+" + URL_SAFE[11:],
        STANDARD[:-2] + "9=",
        "\u0661" * 43,
        KEY.hex(),
        _text(KEY[:31]),
        _text(KEY + b"\x00"),
        _text(KEY + KEY),
        "A",
    ],
)
def test_another_text_names_its_variable(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MasterKey.parse(text, variable="SECRETS_MASTER_KEY")

    assert "SECRETS_MASTER_KEY" == caught.value.field
    assert str(caught.value).startswith("SECRETS_MASTER_KEY: must be 32 random bytes in base64")
    assert not text.strip() or len(text) < 2 or text not in str(caught.value)


@pytest.mark.req("SEC-04", part="keyring")
@pytest.mark.parametrize(
    "value",
    [
        bytes(32),
        b"\xff" * 32,
        b"changeme-changeme-changeme-12345",
        b"0123456789abcdef0123456789abcdef",
        b" " * 32,
        b"\x00\xff" * 16,
        b"\x00\x01\xfe" * 10 + b"\x00\x01",
        KEY[:16] * 2,
        KEY[:15] * 2 + KEY[:2],
    ],
)
def test_placeholders_are_refused(value: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^V: looks like a placeholder"):
        MasterKey.parse(_text(value), variable="V")


@pytest.mark.req("SEC-04", part="keyring")
@given(st.integers(0, 2**64).map(lambda seed: Random(seed).randbytes(32)))
def test_random_keys_are_taken(value: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert MasterKey(SecretMaterial(value)).is_same_key(MasterKey.parse(encode(value).decode(), variable="V"))


@pytest.mark.req("SEC-04", part="keyring")
@pytest.mark.parametrize("answer", vectors("envelope.json")["master_keys"])
def test_id_and_check_value_equal_a_second_implementation(answer: dict[str, str]) -> None:
    key = MasterKey(SecretMaterial(bytes.fromhex(answer["key"])))

    assert answer["key_id"] == key.key_id
    assert bytes.fromhex(answer["check_value"]) == key.check_value
    assert 16 == len(key.key_id)
    assert key.key_id != key.check_value.hex()


@pytest.mark.req("SEC-04", part="keyring")
def test_a_key_is_selected_by_its_id() -> None:
    ring = KeyRing(FIRST, (SECOND,))

    assert FIRST is ring.sealing
    assert FIRST is ring.opening(FIRST.key_id)
    assert SECOND is ring.opening(SECOND.key_id)
    with pytest.raises(KeyUnknown, match=THIRD.key_id):
        ring.opening(THIRD.key_id)


@pytest.mark.req("SEC-04", part="keyring")
def test_a_retired_id_is_refused_with_or_without_its_key() -> None:
    ring = KeyRing(FIRST, (SECOND,), retired=[SECOND.key_id, THIRD.key_id])

    for key in (SECOND, THIRD):
        with pytest.raises(KeyRetired, match=key.key_id):
            ring.opening(key.key_id)


@pytest.mark.req("SEC-04", part="keyring")
def test_the_same_key_twice_is_one_key() -> None:
    assert (FIRST, SECOND) == KeyRing(FIRST, (SECOND, master_key("first"))).keys


@pytest.mark.req("SEC-04", part="keyring")
def test_two_keys_with_one_id_are_refused() -> None:
    impostor = _Impostor(SecretMaterial(KEY))

    with pytest.raises(ConfigError, match=FIRST.key_id):
        KeyRing(FIRST, (impostor,))


@pytest.mark.req("SEC-04", part="keyring")
def test_the_caller_selects_the_sealing_key() -> None:
    ring = KeyRing(FIRST, (SECOND,)).arranged(sealing=SECOND.key_id, retired=[FIRST.key_id])

    assert SECOND is ring.sealing
    assert {FIRST, SECOND} == set(ring.keys)
    with pytest.raises(KeyRetired):
        ring.opening(FIRST.key_id)


@pytest.mark.req("SEC-04", part="keyring")
def test_a_missing_or_retired_key_cannot_seal() -> None:
    with pytest.raises(KeyUnknown):
        KeyRing(FIRST).arranged(sealing=SECOND.key_id, retired=[])
    with pytest.raises(KeyRetired):
        KeyRing(FIRST).arranged(sealing=FIRST.key_id, retired=[FIRST.key_id])


# The sealing key is constant within a transaction, and a change of it waits for all transactions that seal.

SIGNING = Purpose.WEBHOOK_SIGNING
WAITS = """
SELECT count(*) FROM pg_locks
 WHERE locktype = 'relation' AND relation = 'hookseal.key_lock'::regclass AND NOT granted AND database = $1
"""
OUR_DATABASE = "SELECT oid FROM pg_database WHERE datname = current_database()"


async def waiting(pool: Pool, number: int) -> None:
    """Return once that many sessions wait for the lock."""
    database = await pool.fetchval(OUR_DATABASE)

    async def look() -> bool:
        return bool(number == await pool.fetchval(WAITS, database))

    await eventually(look)


async def settled(pool: Pool) -> str:
    """Return the key that a new sealing transaction gets."""
    async with pool.acquire() as connection, connection.transaction():
        return await active_key.lock_shared(connection)


async def promoted(pool: Pool) -> None:
    """Promote the second key."""
    async with pool.acquire() as connection, connection.transaction():
        await active_key.lock_exclusive(connection)
        await moves.promote(connection, SECOND.key_id)


@pytest.fixture
async def two(pool: Pool) -> Pool:
    """Register the first key as active and the second one as staged."""
    await register(pool)
    await register(pool, SECOND, "staged")
    return pool


@pytest.mark.req("SEC-05")
async def test_a_change_waits_for_running_sealings(two: Pool) -> None:
    async with two.acquire() as one, two.acquire() as other:
        begun = one.transaction()
        await begun.start()
        assert FIRST.key_id == await active_key.lock_shared(one)
        async with other.transaction():
            assert FIRST.key_id == await active_key.lock_shared(other)  # sealing transactions do not block each other
            change = asyncio.create_task(promoted(two))
            await waiting(two, 1)
        behind = asyncio.create_task(settled(two))
        await waiting(two, 2)
        assert FIRST.key_id == await active_key.lock_shared(one)
        await begun.commit()
        await change

    assert SECOND.key_id == await behind


@pytest.mark.req("SEC-05")
async def test_a_rolled_back_change_has_no_effect(two: Pool) -> None:
    async with two.acquire() as connection:
        change = connection.transaction()
        await change.start()
        await active_key.lock_exclusive(connection)
        await moves.promote(connection, SECOND.key_id)
        behind = asyncio.create_task(settled(two))
        await waiting(two, 1)
        await change.rollback()

    assert FIRST.key_id == await behind


@pytest.mark.req("SEC-05")
async def test_an_older_store_seals_under_the_new_key(two: Pool) -> None:
    store = PostgresStore(two, KeyRing(FIRST, (SECOND,)))
    await store.put(TENANT, NAME, SECRET, purpose=SIGNING)
    await promoted(two)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=SIGNING)
    await store.put(TENANT, "other", SECRET, purpose=SIGNING)

    rows = await two.fetch("SELECT key_id, wrapped_by FROM hookseal.secret_records ORDER BY name <> $1, version", NAME)
    expected = [FIRST.key_id, SECOND.key_id, SECOND.key_id]
    assert [(key_id, [key_id]) for key_id in expected] == [tuple(row) for row in rows]
    assert FIRST is store.keyring.sealing  # the key ring is unchanged; the table decides
    assert OTHER_SECRET == await PostgresStore(two, KeyRing(SECOND)).get(ref(2, Provider.DB), purpose=SIGNING)
    assert SECRET == await store.get(ref(1, Provider.DB), purpose=SIGNING)


@pytest.mark.req("SEC-05")
async def test_without_an_active_key_nothing_is_sealed(pool: Pool) -> None:
    await register(pool, FIRST, "decrypt_only")
    with pytest.raises(ConfigError, match="no master key is active"):
        await PostgresStore(pool, RING).put(TENANT, NAME, SECRET, purpose=SIGNING)


def test_a_key_id_has_sixteen_hex_digits() -> None:
    assert "0123456789abcdef" == require_key_id("0123456789abcdef")
    for text in ("", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0"):
        with pytest.raises(Malformed) as caught:
            require_key_id(text)
        assert "key_id" == caught.value.field
