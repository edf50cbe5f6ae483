"""The envelope: it opens for its own key and context, and refuses everything else by a class of its own."""

from itertools import permutations
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from hookseal.ground.errors import Defect, Malformed
from hookseal.secrets import envelope, errors
from hookseal.secrets.context import Purpose, SecretContext
from hookseal.secrets.envelope import (
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
from hookseal.secrets.errors import (
    ContextMismatch,
    KeyRetired,
    KeyUnknown,
    RecordMalformed,
    RecordRefused,
    RecordTampered,
    SecretTampered,
)
from hookseal.secrets.keyring import KeyRing, MasterKey
from hookseal.secrets.material import MAX_BYTES, SecretMaterial
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
# From which byte on a flipped bit is refused, and as what (the table of fields in docs/CANONICAL/SECRETS.md).
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
def test_what_is_sealed_opens(secret: bytes, context: SecretContext) -> None:
    """Sealing and opening give the secret back, whatever it and its context are, at 226 bytes over."""
    sealed = seal(RING, SecretMaterial(secret), context)

    assert SecretMaterial(secret) == open_sealed(RING, sealed, context)
    assert len(secret) + OVERHEAD_BYTES == len(sealed)
    assert FIRST.key_id == key_id_of(sealed)


def test_nothing_of_the_secret_or_the_keys_stands_in_a_record() -> None:
    """A record holds neither the secret nor, with one secret sealed twice, any run of bytes in both."""
    other = seal(RING, SECRET, CONTEXT)

    assert SECRET.reveal() not in SEALED
    assert SEALED[:10] == other[:10]
    assert not any(SEALED[at : at + 12] in other for at in range(10, len(SEALED) - 12))


@pytest.mark.parametrize("case", KNOWN["opened"], ids=lambda case: case["comment"])
def test_known_answers(case: dict[str, Any]) -> None:
    """With chance fixed, a record is byte for byte what a second implementation makes, and opens."""
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
def test_known_refusals(case: dict[str, Any]) -> None:
    """Every record that must not open is refused with exactly the class that is known for it."""
    ring = _ring(case["held"], case["retired"])

    with pytest.raises(RecordRefused) as caught:
        open_sealed(ring, bytes.fromhex(case["sealed"]), SecretContext(**case["context"]))

    assert getattr(errors, case["error"]) is type(caught.value)


@pytest.mark.parametrize("place", range(len(SEALED)))
def test_every_flipped_bit_is_refused(place: int) -> None:
    """No bit of a record can be flipped, and the class of the refusal tells in which field it was."""
    for bit in range(8):
        flipped = bytearray(SEALED)
        flipped[place] ^= 1 << bit
        with pytest.raises(RecordRefused) as caught:
            open_sealed(RING, bytes(flipped), CONTEXT)
        assert _refusal_at(place) is type(caught.value)


def test_every_truncation_is_refused() -> None:
    """A record cut at any length is malformed while no secret fits in it, and tampered from there on."""
    for length in range(len(SEALED)):
        with pytest.raises(RecordRefused) as caught:
            open_sealed(RING, SEALED[:length], CONTEXT)
        assert (RecordMalformed if length <= OVERHEAD_BYTES else RecordTampered) is type(caught.value)


@pytest.mark.parametrize("extra", [b"\x00", b"\xff", SEALED])
def test_nothing_can_be_added(extra: bytes) -> None:
    """A record with anything before or after it is refused."""
    with pytest.raises(RecordTampered):
        open_sealed(RING, SEALED + extra, CONTEXT)
    with pytest.raises(RecordRefused):
        open_sealed(RING, extra + SEALED, CONTEXT)


def test_no_two_records_can_be_spliced() -> None:
    """Of two records of one context, cut at any border of fields and joined, none opens."""
    other = seal(RING, OTHER_SECRET, CONTEXT)
    for border in (42, 74, 86, 134, 166, 198, 210, len(SEALED) - 16):
        for one, two in permutations((SEALED, other)):
            with pytest.raises((ContextMismatch, RecordTampered)):
                open_sealed(RING, one[:border] + two[border:], CONTEXT)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize("context", OTHERS)
def test_a_record_opens_in_its_own_context_only(context: SecretContext) -> None:
    """Another tenant, name, version or purpose is refused as a context, not taken for tampering."""
    with pytest.raises(ContextMismatch):
        open_sealed(RING, SEALED, context)


@given(CONTEXTS, CONTEXTS)
@settings(max_examples=50)
def test_no_two_contexts_open_each_other(one: SecretContext, other: SecretContext) -> None:
    """A record sealed in one context opens in that one and in no other."""
    sealed = seal(RING, SECRET, one)
    if one == other:
        assert SECRET == open_sealed(RING, sealed, other)
    else:
        with pytest.raises(ContextMismatch):
            open_sealed(RING, sealed, other)


def test_unknown_and_retired_keys_are_told_apart() -> None:
    """A key that is not held and a key that may not open are two refusals; an older key that may, opens."""
    assert SECRET == open_sealed(KeyRing(SECOND, (FIRST,)), SEALED, CONTEXT)
    with pytest.raises(KeyUnknown):
        open_sealed(KeyRing(SECOND), SEALED, CONTEXT)
    with pytest.raises(KeyRetired):
        open_sealed(KeyRing(SECOND, (FIRST,), retired=[FIRST.key_id]), SEALED, CONTEXT)


def test_a_key_is_never_tried() -> None:
    """A record that names one held key does not open because another held key could."""
    renamed = SEALED[:2] + bytes.fromhex(SECOND.key_id) + SEALED[10:]

    with pytest.raises(ContextMismatch):
        open_sealed(KeyRing(FIRST, (SECOND,)), renamed, CONTEXT)


@pytest.mark.parametrize("case", COLLISIONS, ids=lambda case: f"case {case['tcId']}")
@pytest.mark.parametrize(("right", "wrong"), [("1", "2"), ("2", "1")])
def test_a_two_key_collision_opens_under_the_key_committed_to_only(
    case: dict[str, str], right: str, wrong: str
) -> None:
    """A ciphertext that AES-256-GCM itself opens under two keys opens, as a level, under one of them."""
    nonce, ciphertext, associated = (bytes.fromhex(case[name]) for name in ("iv", "ct", "aad"))
    ciphertext += bytes.fromhex(case["tag"])
    keys = {n: bytes.fromhex(case[f"key{n}"]) for n in "12"}
    commitments = {"1": b"\x01" * 32, "2": b"\x02" * 32}
    level = _Level(salt=bytes(32), commit=commitments[right], nonce=nonce, ciphertext=ciphertext)

    assert case[f"msg{wrong}"] == AESGCM(keys[wrong]).decrypt(nonce, ciphertext, associated).hex()
    assert case[f"msg{right}"] == _open_level(keys[right] + commitments[right], level, associated).hex()
    with pytest.raises(ContextMismatch):
        _open_level(keys[wrong] + commitments[wrong], level, associated)


def test_every_master_key_and_data_key_commits_to_something_else() -> None:
    """At both levels the commitment in the record is the key's own: another key would have made another."""
    same = bytes(range(32))
    first = _seal_with(KeyRing(FIRST), SECRET, CONTEXT, random_bytes=lambda count: same[:count])
    second = _seal_with(KeyRing(SECOND), SECRET, CONTEXT, random_bytes=lambda count: same[:count])
    third = _seal_with(KeyRing(FIRST), SECRET, CONTEXT, random_bytes=lambda count: same[::-1][:count])

    assert first[42:74] != second[42:74]
    assert first[166:198] != third[166:198]
    assert first[134:] == second[134:]  # the data level names no master key


@pytest.mark.parametrize("secret", [b"\x00", b"\xff\xfe\x00", b"s" * MAX_BYTES])
def test_a_secret_may_be_any_bytes_up_to_64_kib(secret: bytes) -> None:
    """NUL, what is not UTF-8, and 64 KiB are sealed and come back."""
    assert secret == open_sealed(RING, seal(RING, SecretMaterial(secret), CONTEXT), CONTEXT).reveal()


@pytest.mark.parametrize("secret", [b"", b"s" * (MAX_BYTES + 1)])
def test_an_empty_or_too_long_secret_is_not_sealed(secret: bytes) -> None:
    """Nothing, and more than 64 KiB, is malformed before anything is drawn."""
    with pytest.raises(Malformed) as caught:
        seal(RING, SecretMaterial(secret), CONTEXT)

    assert "secret" == caught.value.field


def test_a_record_longer_than_any_secret_is_malformed() -> None:
    """A record that could hold no secret of ours is refused before a key is looked for."""
    with pytest.raises(RecordMalformed):
        key_id_of(SEALED + bytes(MAX_BYTES))


def test_every_refusal_is_a_definitive_error_of_its_own() -> None:
    """The five refusals are five classes under one, and each means that the stored secret is not used."""
    refusals = {RecordMalformed, KeyUnknown, KeyRetired, ContextMismatch, RecordTampered}

    assert refusals == set(RecordRefused.__subclasses__())
    assert issubclass(RecordRefused, SecretTampered)
    assert 5 == len({refusal.code for refusal in refusals})


def test_nonces_and_salts_are_never_repeated() -> None:
    """Over many seals of one secret every salt and every nonce is drawn anew."""
    fields = [slice(10, 42), slice(74, 86), slice(134, 166), slice(198, 210)]
    records = [seal(RING, SECRET, CONTEXT) for _ in range(500)]

    assert [500] * 4 == [len({record[field] for record in records}) for field in fields]


@pytest.mark.req("SEC-05")
@given(st.binary(min_size=1, max_size=300), CONTEXTS)
@settings(max_examples=50)
def test_what_is_re_wrapped_opens_under_the_new_key_only(secret: bytes, context: SecretContext) -> None:
    """The new head before the body as it stands is a record of the new key, which alone opens it, to its secret."""
    sealed = seal(RING, SecretMaterial(secret), context)
    anew = rewrapped(BOTH, sealed[:HEAD_BYTES], context, of=FIRST.key_id) + sealed[HEAD_BYTES:]

    assert SecretMaterial(secret) == open_sealed(KeyRing(SECOND), anew, context)
    assert (SECOND.key_id, len(sealed)) == (key_id_of(anew), len(anew))
    with pytest.raises(KeyUnknown):
        open_sealed(RING, anew, context)


@pytest.mark.req("SEC-05")
def test_a_re_wrap_asks_for_nothing_but_the_head() -> None:
    """The secret is never opened: what follows the head is not given, and each re-wrap draws salt and nonce anew."""
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
    """The head of another tenant, name, version or purpose does not open, so it is not made to look this one's."""
    with pytest.raises(ContextMismatch):
        rewrapped(BOTH, HEAD, context, of=FIRST.key_id)


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("place", range(HEAD_BYTES))
def test_every_flipped_bit_of_a_head_is_refused(place: int) -> None:
    """No altered head is wrapped anew; one that names another key than the one that is left is tampered with."""
    for bit in range(8):
        flipped = bytearray(HEAD)
        flipped[place] ^= 1 << bit
        with pytest.raises(RecordRefused) as caught:
            rewrapped(BOTH, bytes(flipped), CONTEXT, of=FIRST.key_id)
        expected = _refusal_at(place)
        assert (RecordTampered if expected is KeyUnknown else expected) is type(caught.value)


@pytest.mark.req("SEC-05")
def test_a_head_of_another_length_is_refused() -> None:
    """Cut at any length, and with anything behind it, it is no head."""
    for head in (*(HEAD[:length] for length in range(HEAD_BYTES)), HEAD + b"\x00"):
        with pytest.raises(RecordMalformed):
            rewrapped(BOTH, head, CONTEXT, of=FIRST.key_id)


@pytest.mark.req("SEC-05")
def test_the_key_that_is_left_is_the_one_that_was_asked_for() -> None:
    """A head names the key that is left, which is held and not retired; another one is not left on the way."""
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
    """A new head does not open another record of the same context, nor do parts of it and of the one before it."""
    other = seal(RING, OTHER_SECRET, CONTEXT)
    anew = rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id) + BODY
    again = rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id) + BODY

    assert SECRET == open_sealed(BOTH, again[:HEAD_BYTES] + anew[HEAD_BYTES:], CONTEXT)  # one data key, twice wrapped
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
    """A record that was wrapped anew refuses what a record that was sealed refuses."""
    anew = bytearray(rewrapped(BOTH, HEAD, CONTEXT, of=FIRST.key_id) + BODY)
    anew[place] ^= 1 << place % 8
    with pytest.raises(RecordRefused) as caught:
        open_sealed(BOTH, bytes(anew), CONTEXT)
    assert _refusal_at(place) is type(caught.value)


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("fault", ["another data key", "another context", "another key"])
def test_a_wrap_that_is_not_the_same_is_never_given_out(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was wrapped anew is opened before it is given out: if it is not the same data key, nothing is."""
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
