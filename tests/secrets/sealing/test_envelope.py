"""The envelope: a record opens with its own key and context only, and each kind of refusal has its own class."""

from itertools import permutations
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from hookseal import errors
from hookseal.errors import (
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
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import MAX_BYTES, SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretContext
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
)
from tests.secrets.test_context import CONTEXTS
from tests.vectors.reading import vectors

pytestmark = pytest.mark.req("SEC-03")

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
        sealing,
        tuple(opening),
        retired=[MasterKey(SecretMaterial(bytes.fromhex(key))).key_id for key in retired],
    )


def _refusal_at(place: int) -> type[RecordRefused]:
    return [refusal for start, refusal in REFUSED_FROM if start <= place][-1]


@given(st.binary(min_size=1, max_size=300), CONTEXTS)
def test_a_sealed_record_opens(secret: bytes, context: SecretContext) -> None:
    """Any secret and context can be sealed and opened again; a record is 226 bytes longer than its secret."""
    sealed = seal(RING, SecretMaterial(secret), context)

    assert SecretMaterial(secret) == open_sealed(RING, sealed, context)
    assert len(secret) + OVERHEAD_BYTES == len(sealed)
    assert FIRST.key_id == key_id_of(sealed)


def test_a_record_contains_nothing_of_the_secret_or_the_keys() -> None:
    """A record does not contain the secret, and two records of one secret share no run of bytes."""
    other = seal(RING, SECRET, CONTEXT)

    assert SECRET.reveal() not in SEALED
    assert SEALED[:10] == other[:10]
    assert not any(SEALED[at : at + 12] in other for at in range(10, len(SEALED) - 12))


@pytest.mark.parametrize("case", KNOWN["opened"], ids=lambda case: case["comment"])
def test_records_equal_a_second_implementation(case: dict[str, Any]) -> None:
    """With fixed random bytes, a record is byte for byte that of a second implementation, and opens."""
    context, secret = SecretContext(**case["context"]), SecretMaterial(bytes.fromhex(case["secret"]))
    ring, drawn = _ring([case["master_key"]], []), [bytes.fromhex(value) for value in case["random"].values()]
    chance, asked = iter(drawn), list[int]()

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return next(chance)

    assert case["sealed"] == _seal_with(ring, secret, context, random_bytes=random_bytes).hex()
    assert [len(value) for value in drawn] == asked
    assert secret == open_sealed(ring, bytes.fromhex(case["sealed"]), context)


@pytest.mark.parametrize("case", KNOWN["refused"], ids=lambda case: case["comment"])
def test_each_known_invalid_record_has_its_refusal(case: dict[str, Any]) -> None:
    """Every known invalid record is refused with exactly the expected class."""
    ring = _ring(case["held"], case["retired"])

    with pytest.raises(RecordRefused) as caught:
        open_sealed(ring, bytes.fromhex(case["sealed"]), SecretContext(**case["context"]))

    assert getattr(errors, case["error"]) is type(caught.value)


@pytest.mark.parametrize("place", range(len(SEALED)))
def test_every_flipped_bit_is_refused(place: int) -> None:
    """Every flipped bit is refused, and the class of the error depends on the field."""
    for bit in range(8):
        flipped = bytearray(SEALED)
        flipped[place] ^= 1 << bit
        with pytest.raises(RecordRefused) as caught:
            open_sealed(RING, bytes(flipped), CONTEXT)
        assert _refusal_at(place) is type(caught.value)


def test_every_truncation_is_refused() -> None:
    """A truncated record is malformed if it is too short for any secret, and otherwise tampered with."""
    for length in range(len(SEALED)):
        with pytest.raises(RecordRefused) as caught:
            open_sealed(RING, SEALED[:length], CONTEXT)
        assert (RecordMalformed if length <= OVERHEAD_BYTES else RecordTampered) is type(caught.value)


@pytest.mark.parametrize("extra", [b"\x00", b"\xff", SEALED])
def test_added_bytes_are_refused(extra: bytes) -> None:
    """A record with bytes added before or after it is refused."""
    with pytest.raises(RecordTampered):
        open_sealed(RING, SEALED + extra, CONTEXT)
    with pytest.raises(RecordRefused):
        open_sealed(RING, extra + SEALED, CONTEXT)


def test_no_two_records_can_be_spliced() -> None:
    """Two records of one context, cut at any border of fields and joined, do not open."""
    other = seal(RING, OTHER_SECRET, CONTEXT)
    for border in (42, 74, 86, 134, 166, 198, 210, len(SEALED) - 16):
        for one, two in permutations((SEALED, other)):
            with pytest.raises((ContextMismatch, RecordTampered)):
                open_sealed(RING, one[:border] + two[border:], CONTEXT)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize("context", OTHERS)
def test_a_record_opens_in_its_own_context_only(context: SecretContext) -> None:
    """Another tenant, name, version or purpose is refused as a context mismatch, not as tampering."""
    with pytest.raises(ContextMismatch):
        open_sealed(RING, SEALED, context)


@given(CONTEXTS, CONTEXTS)
@settings(max_examples=50)
def test_no_two_contexts_open_each_other(one: SecretContext, other: SecretContext) -> None:
    """A record opens in the context in which it was sealed, and in no other."""
    sealed = seal(RING, SECRET, one)
    if one == other:
        assert SECRET == open_sealed(RING, sealed, other)
    else:
        with pytest.raises(ContextMismatch):
            open_sealed(RING, sealed, other)


def test_missing_and_retired_keys_have_different_errors() -> None:
    """A missing key and a retired key are different errors; an older key that is not retired opens its records."""
    assert SECRET == open_sealed(KeyRing(SECOND, (FIRST,)), SEALED, CONTEXT)
    with pytest.raises(KeyUnknown):
        open_sealed(KeyRing(SECOND), SEALED, CONTEXT)
    with pytest.raises(KeyRetired):
        open_sealed(KeyRing(SECOND, (FIRST,), retired=[FIRST.key_id]), SEALED, CONTEXT)


def test_a_record_is_opened_only_with_the_key_that_it_names() -> None:
    """A record that names one key is not tried with another."""
    renamed = SEALED[:2] + bytes.fromhex(SECOND.key_id) + SEALED[10:]

    with pytest.raises(ContextMismatch):
        open_sealed(KeyRing(FIRST, (SECOND,)), renamed, CONTEXT)


@pytest.mark.parametrize("case", COLLISIONS, ids=lambda case: f"case {case['tcId']}")
@pytest.mark.parametrize(("right", "wrong"), [("1", "2"), ("2", "1")])
def test_a_two_key_collision_opens_only_with_the_committed_key(case: dict[str, str], right: str, wrong: str) -> None:
    """A ciphertext that AES-256-GCM opens with two keys is opened with the committed key only."""
    nonce, ciphertext, associated = (bytes.fromhex(case[name]) for name in ("iv", "ct", "aad"))
    ciphertext += bytes.fromhex(case["tag"])
    keys = {n: bytes.fromhex(case[f"key{n}"]) for n in "12"}
    commitments = {"1": b"\x01" * 32, "2": b"\x02" * 32}
    level = _Level(salt=bytes(32), commit=commitments[right], nonce=nonce, ciphertext=ciphertext)

    assert case[f"msg{wrong}"] == AESGCM(keys[wrong]).decrypt(nonce, ciphertext, associated).hex()
    assert case[f"msg{right}"] == _open_level(keys[right] + commitments[right], level, associated).hex()
    with pytest.raises(ContextMismatch):
        _open_level(keys[wrong] + commitments[wrong], level, associated)


def test_different_keys_have_different_commitments() -> None:
    """At both levels, another key gives another commitment."""
    same = bytes(range(32))
    first = _seal_with(KeyRing(FIRST), SECRET, CONTEXT, random_bytes=lambda count: same[:count])
    second = _seal_with(KeyRing(SECOND), SECRET, CONTEXT, random_bytes=lambda count: same[:count])
    third = _seal_with(KeyRing(FIRST), SECRET, CONTEXT, random_bytes=lambda count: same[::-1][:count])

    assert first[42:74] != second[42:74]
    assert first[166:198] != third[166:198]
    assert first[134:] == second[134:]  # the data level does not depend on the master key


@pytest.mark.parametrize("secret", [b"\x00", b"\xff\xfe\x00", b"s" * MAX_BYTES])
def test_a_secret_may_be_any_bytes_up_to_64_kib(secret: bytes) -> None:
    """NUL, bytes that are not UTF-8, and 64 KiB are sealed and opened unchanged."""
    assert secret == open_sealed(RING, seal(RING, SecretMaterial(secret), CONTEXT), CONTEXT).reveal()


@pytest.mark.parametrize("secret", [b"", b"s" * (MAX_BYTES + 1)])
def test_an_empty_or_too_long_secret_is_not_sealed(secret: bytes) -> None:
    """An empty secret, or one above 64 KiB, is malformed."""
    with pytest.raises(Malformed) as caught:
        seal(RING, SecretMaterial(secret), CONTEXT)

    assert "secret" == caught.value.field


def test_a_record_longer_than_any_secret_is_malformed() -> None:
    """A record that is longer than any secret allows is refused before a key is looked up."""
    with pytest.raises(RecordMalformed):
        key_id_of(SEALED + bytes(MAX_BYTES))


def test_every_refusal_has_its_own_definitive_error() -> None:
    """The five refusals are five classes with a common base, with different codes, all definitive."""
    refusals = {RecordMalformed, KeyUnknown, KeyRetired, ContextMismatch, RecordTampered}

    assert refusals == set(RecordRefused.__subclasses__())
    assert issubclass(RecordRefused, SecretTampered)
    assert 5 == len({refusal.code for refusal in refusals})


def test_nonces_and_salts_are_never_repeated() -> None:
    """Each of many seals of one secret has new salts and nonces."""
    fields = [slice(10, 42), slice(74, 86), slice(134, 166), slice(198, 210)]
    records = [seal(RING, SECRET, CONTEXT) for _ in range(500)]

    assert [500] * 4 == [len({record[field] for record in records}) for field in fields]


@pytest.mark.req("SEC-05")
@given(st.binary(min_size=1, max_size=300), CONTEXTS)
@settings(max_examples=50)
def test_a_re_wrapped_record_opens_under_the_new_key_only(secret: bytes, context: SecretContext) -> None:
    """A re-wrapped record, the new head with the old body, opens with the new key only."""
    sealed = seal(RING, SecretMaterial(secret), context)
    anew = rewrapped(BOTH, sealed[:HEAD_BYTES], context, of=FIRST.key_id) + sealed[HEAD_BYTES:]

    assert SecretMaterial(secret) == open_sealed(KeyRing(SECOND), anew, context)
    assert (SECOND.key_id, len(sealed)) == (key_id_of(anew), len(anew))
    with pytest.raises(KeyUnknown):
        open_sealed(RING, anew, context)


@pytest.mark.req("SEC-05")
def test_a_re_wrap_reads_only_the_head() -> None:
    """A re-wrap needs only the head, so it never opens the secret; each one has a new salt and nonce."""
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


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("context", OTHERS)
def test_a_re_wrap_in_another_context_is_refused(context: SecretContext) -> None:
    """The head of another tenant, name, version or purpose is refused and not re-wrapped."""
    with pytest.raises(ContextMismatch):
        rewrapped(BOTH, HEAD, context, of=FIRST.key_id)


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("place", range(HEAD_BYTES))
def test_every_flipped_bit_of_a_head_is_refused(place: int) -> None:
    """An altered head is refused; if it names another key than expected, it counts as tampered with."""
    for bit in range(8):
        flipped = bytearray(HEAD)
        flipped[place] ^= 1 << bit
        with pytest.raises(RecordRefused) as caught:
            rewrapped(BOTH, bytes(flipped), CONTEXT, of=FIRST.key_id)
        expected = _refusal_at(place)
        assert (RecordTampered if expected is KeyUnknown else expected) is type(caught.value)


@pytest.mark.req("SEC-05")
def test_a_head_of_another_length_is_refused() -> None:
    """A head of any other length is malformed."""
    for head in (*(HEAD[:length] for length in range(HEAD_BYTES)), HEAD + b"\x00"):
        with pytest.raises(RecordMalformed):
            rewrapped(BOTH, head, CONTEXT, of=FIRST.key_id)


@pytest.mark.req("SEC-05")
def test_a_head_is_re_wrapped_from_the_given_key_only() -> None:
    """A head is re-wrapped only if it names the given old key, and the ring has that key unretired."""
    with pytest.raises(RecordTampered):
        rewrapped(KeyRing(THIRD, (FIRST, SECOND)), HEAD, CONTEXT, of=SECOND.key_id)
    with pytest.raises(KeyUnknown):
        rewrapped(KeyRing(SECOND), HEAD, CONTEXT, of=FIRST.key_id)
    with pytest.raises(KeyRetired):
        rewrapped(KeyRing(SECOND, (FIRST,), retired=[FIRST.key_id]), HEAD, CONTEXT, of=FIRST.key_id)
    renamed = HEAD[:2] + bytes.fromhex(SECOND.key_id) + HEAD[10:]
    with pytest.raises(ContextMismatch):
        rewrapped(KeyRing(THIRD, (FIRST, SECOND)), renamed, CONTEXT, of=SECOND.key_id)


@pytest.mark.req("SEC-05")
def test_re_wrapped_records_cannot_be_spliced() -> None:
    """A new head does not open another record of the same context; neither do parts of old and new heads."""
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


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("place", range(HEAD_BYTES))
def test_every_flipped_bit_of_a_new_head_is_refused(place: int) -> None:
    """A re-wrapped record refuses a flipped bit with the same error as any other record."""
    anew = bytearray(rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id) + BODY)
    anew[place] ^= 1 << place % 8
    with pytest.raises(RecordRefused) as caught:
        open_sealed(BOTH, bytes(anew), CONTEXT)
    assert _refusal_at(place) is type(caught.value)


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
