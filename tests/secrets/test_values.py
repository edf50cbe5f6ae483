"""Values of secrets: contexts and refs have one encoding, material is masked and neither copied nor pickled."""

import base64
import copy
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hookseal import errors
from hookseal.errors import CannotSign, Defect, Malformed, SecretError, SecretUnavailable, Unavailable
from hookseal.ground.ids import OPERATOR_TENANT, SYSTEM_TENANT, TenantId
from hookseal.ground.wire import Algorithm, Scheme, framed
from hookseal.secrets.core.envelope import open_sealed, seal
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import MAX_VERSION, Provider, Purpose, SecretContext, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import Signer
from tests.secrets.samples import CONTEXT, ENDPOINT, FIRST, INTEGRITY, OTHER_TENANT, RING, SECRET, ref, signing_secret

PARTS = st.lists(st.one_of(st.none(), st.binary(max_size=6)), max_size=4)
CONTEXTS = st.builds(
    SecretContext,
    tenant=st.text("a/b:c\x00", max_size=4).map(TenantId),
    name=st.text("a/b:c\x00", max_size=4),
    version=st.integers(1, 2**63 - 1),
    purpose=st.sampled_from(Purpose),
)


@pytest.mark.req("SEC-03")
def test_framing_writes_a_count_and_each_length() -> None:
    assert b"\x00\x00" == framed()
    assert b"\x00\x03\x00\x00\x00\x02ab\x00\x00\x00\x00\xff\xff\xff\xff" == framed(b"ab", b"", None)


@pytest.mark.req("SEC-03")
@given(PARTS, PARTS)
def test_framing_is_injective(one: list[bytes | None], other: list[bytes | None]) -> None:
    assert (one == other) == (framed(*one) == framed(*other))


@pytest.mark.req("SEC-03")
@given(CONTEXTS, CONTEXTS)
def test_encoding_is_injective(one: SecretContext, other: SecretContext) -> None:
    assert (one == other) == (one.encode() == other.encode())


@pytest.mark.req("SEC-03")
def test_text_cannot_move_between_parts() -> None:
    one = SecretContext(tenant=TenantId("a/b"), name="c", version=1, purpose=Purpose.SENTINEL)
    other = SecretContext(tenant=TenantId("a"), name="b/c", version=1, purpose=Purpose.SENTINEL)

    assert one.encode() != other.encode()


@pytest.mark.req("SEC-03")
def test_the_provider_is_no_part_of_a_context() -> None:
    assert CONTEXT == SecretContext.of(ref(1, Provider.DB), Purpose.WEBHOOK_SIGNING)
    assert CONTEXT == SecretContext.of(ref(1, Provider.DEV), Purpose.WEBHOOK_SIGNING)


# The secret ref: one grammar, one text form, and errors that name the part.

REFS = st.builds(
    SecretRef,
    provider=st.sampled_from(Provider),
    tenant=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True).map(TenantId),
    name=st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True),
    version=st.integers(1, MAX_VERSION),
)
MALFORMED = [
    ("length", "db:acme:" + "n" * 505 + ":1"),
    ("shape", ""),
    ("shape", "db:acme:name"),
    ("shape", "db:acme:name:1:"),
    ("shape", "db:acme:na:me:1"),
    ("provider", ":acme:name:1"),
    ("provider", "vault:acme:name:1"),
    ("provider", "DB:acme:name:1"),
    ("provider", " db:acme:name:1"),
    ("tenant", "db::name:1"),
    ("tenant", "db:-acme:name:1"),
    ("tenant", "db:_system:name:1"),
    ("tenant", "db:_other:name:1"),
    ("tenant", "db:ac me:name:1"),
    ("tenant", "db:acme\x00:name:1"),
    ("tenant", f"db:{'t' * 64}:name:1"),
    ("name", "db:acme::1"),
    ("name", "db:acme:na/me:1"),
    ("name", "db:acme:n\u00e4me:1"),
    ("name", "db:acme:name\n:1"),
    ("name", f"db:acme:{'n' * 129}:1"),
    ("version", "db:acme:name:"),
    ("version", "db:acme:name:0"),
    ("version", "db:acme:name:01"),
    ("version", "db:acme:name:+1"),
    ("version", "db:acme:name:-1"),
    ("version", "db:acme:name:1_0"),
    ("version", "db:acme:name:1.0"),
    ("version", "db:acme:name: 1"),
    ("version", "db:acme:name:1\n"),
    ("version", "db:acme:name:\u0661"),
    ("version", "db:acme:name:1\u0660"),
    ("version", "db:acme:name:9223372036854775808"),
    ("version", "db:acme:name:10000000000000000000"),
    ("version", "db:acme:name:latest"),
]


@pytest.mark.req("SEC-02")
@given(REFS)
@example(SecretRef(provider=Provider.OPENBAO, tenant=TenantId("t" * 63), name="n" * 128, version=MAX_VERSION))
def test_a_formatted_ref_is_parsed_back(ref: SecretRef) -> None:
    assert ref == SecretRef.parse(str(ref))
    assert 512 >= len(str(ref).encode())


@pytest.mark.req("SEC-02")
@given(
    st.text()
    | st.tuples(
        st.sampled_from([*Provider, "", "x", "DB"]),
        st.text("ab_.\n-", max_size=8),
        st.text("ab/.", max_size=8),
        st.text("019\u0660+", max_size=8),
    ).map(":".join)
)
def test_a_ref_has_one_text_form(text: str) -> None:
    with suppress(Malformed):
        assert text == str(SecretRef.parse(text))


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize(("part", "text"), MALFORMED)
def test_every_malformed_class_names_its_part_only(part: str, text: str) -> None:
    with pytest.raises(Malformed) as caught:
        SecretRef.parse(text)

    assert "secret_ref" == caught.value.field
    assert str(caught.value).startswith(f"secret ref: its {part} must be ")
    assert not text or text not in str(caught.value)


@pytest.mark.req("SEC-02")
def test_a_ref_of_the_installation_parses_inside_only() -> None:
    ref = SecretRef(provider=Provider.DB, tenant=SYSTEM_TENANT, name="integrity", version=1)

    assert ref == SecretRef.parse(str(ref), reserved=True)
    with pytest.raises(Malformed, match="its tenant must be a tenant that is not reserved"):
        SecretRef.parse(str(ref))


@pytest.mark.req("SEC-02")
def test_a_ref_of_the_operator_parses() -> None:
    assert OPERATOR_TENANT == SecretRef.parse("db:_operator:name:1").tenant


@pytest.mark.req("SEC-02")
def test_only_two_tenants_are_reserved() -> None:
    with pytest.raises(Malformed, match="its tenant"):
        SecretRef.parse("db:_other:name:1", reserved=True)


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize(
    ("part", "tenant", "name", "version"),
    [
        ("tenant", "-acme", "n", 1),
        ("name", "acme", "a:b", 1),
        ("version", "acme", "n", 0),
        ("version", "a", "n", 2**63),
    ],
)
def test_a_reference_cannot_be_built_malformed(part: str, tenant: str, name: str, version: int) -> None:
    """A ref that is made from parts obeys the same grammar, so that its text always parses."""
    with pytest.raises(Malformed, match=f"its {part} "):
        SecretRef(provider=Provider.DB, tenant=TenantId(tenant), name=name, version=version)


@pytest.mark.req("SEC-02")
def test_an_endpoints_secret_is_named_for_it() -> None:
    assert "webhook-endpoint-01890a5d-ac96-774b-bcce-b302099a8057" == endpoint_secret_name(ENDPOINT)


# Secret material is masked, is never copied by itself, and compares in constant time.

CANARY = b"canary-4f1d"
MATERIAL = SecretMaterial(CANARY)
LEAVING: list[Callable[[object], object]] = [
    pickle.dumps,
    copy.copy,
    copy.deepcopy,
    lambda value: value.__reduce__(),
    lambda value: value.__reduce_ex__(4),
    lambda value: value.__getstate__(),
]


@pytest.mark.req("SEC-15", part="secrets")
def test_reveal_returns_the_bytes() -> None:
    assert CANARY == MATERIAL.reveal()
    assert len(CANARY) == len(MATERIAL)


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize("show", [repr, str, format, "{:>40}".format, "{!r:.99}".format, "%s".__mod__, ascii])
def test_every_text_form_is_masked(show: Callable[[object], str]) -> None:
    assert "SecretMaterial([masked])" == show(MATERIAL)


@pytest.mark.req("SEC-15", part="secrets")
def test_containers_mask_material() -> None:
    shown = repr(
        [[MATERIAL], {"a": MATERIAL}, INTEGRITY, FIRST, RING, Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC)]
    )

    assert CANARY.decode() not in shown
    assert "IntegrityKey(1)" in shown
    assert f"MasterKey({FIRST.key_id})" in shown
    assert "Signer(ref)" in shown


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize(
    "value",
    [MATERIAL, FIRST, INTEGRITY, Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC)],
    ids=lambda value: type(value).__name__,
)
def test_keys_are_not_copied_or_pickled(leave: Callable[[object], object], value: object) -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        leave(value)


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize("value", [RING, INTEGRITY, [MATERIAL]], ids=lambda value: type(value).__name__)
def test_containers_of_keys_are_not_pickled(value: object) -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        pickle.dumps(value)


@pytest.mark.req("SEC-15", part="secrets")
def test_material_equals_only_the_same_bytes() -> None:
    assert SecretMaterial(CANARY) == MATERIAL
    assert SecretMaterial(b"canary-4f1e") != MATERIAL
    assert SecretMaterial(b"") != MATERIAL
    assert (MATERIAL == CANARY) is False


@pytest.mark.req("SEC-15", part="secrets")
def test_material_has_no_hash_and_cannot_be_iterated() -> None:
    for read in (hash, vars, bytes, list, memoryview):
        with pytest.raises(TypeError):
            read(MATERIAL)  # type: ignore[arg-type, call-overload]


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize("value", ["canary-4f1d", 5, bytearray(b"x"), None])
def test_only_bytes_are_accepted(value: object) -> None:
    with pytest.raises(TypeError, match=r"^secret material is made from bytes$"):
        SecretMaterial(value)  # type: ignore[arg-type]


@pytest.mark.req("SEC-15", part="secrets")
def test_a_master_key_has_32_bytes() -> None:
    with pytest.raises(Defect):
        type(FIRST)(SecretMaterial(bytes(31)))
    assert (FIRST,) == KeyRing(FIRST).keys


READABLE = "CanaryCanary4f1dCanary"
# No error of this room contains a secret value: canaries in every refusal that handles one.
ENCODED = base64.b64encode(READABLE.encode() * 2).decode()
READABLE_KEY = base64.b64encode((READABLE + "0123456789").encode()).decode()


def _elsewhere() -> object:
    context = type(CONTEXT)(tenant=OTHER_TENANT, name=CONTEXT.name, version=1, purpose=CONTEXT.purpose)
    return open_sealed(RING, seal(RING, SecretMaterial(READABLE.encode()), CONTEXT), context)


def _tampered() -> object:
    return open_sealed(RING, seal(RING, SecretMaterial(READABLE.encode()), CONTEXT) + b"\x00", CONTEXT)


REFUSALS: dict[str, Callable[[], object]] = {
    "secret without prefix": lambda: signing_secret(READABLE, Scheme.STANDARD),
    "secret with bad base64": lambda: signing_secret(f"whsec_{READABLE}%", Scheme.STANDARD),
    "secret too short": lambda: signing_secret(
        "whsec_" + base64.b64encode(READABLE.encode()).decode(), Scheme.STANDARD
    ),
    "secret not ASCII": lambda: signing_secret(f"whsec_{ENCODED}\u00e4", Scheme.STANDARD),
    "stored secret of another form": lambda: Signer(
        "ref", SecretMaterial(READABLE.encode()), Scheme.STANDARD, Algorithm.HMAC
    ),
    "stored secret not UTF-8": lambda: Signer(
        "ref", SecretMaterial(b"whsec_\xff" + READABLE.encode()), Scheme.STANDARD, Algorithm.HMAC
    ),
    "signer that forgot": lambda: _forgotten().sign(READABLE.encode()),
    "secret too long": lambda: seal(RING, SecretMaterial(READABLE.encode() * 3000), CONTEXT),
    "secret not bytes": lambda: SecretMaterial(READABLE),  # type: ignore[arg-type]
    "material pickled": lambda: pickle.dumps(SecretMaterial(READABLE.encode())),
    "record elsewhere": _elsewhere,
    "record tampered with": _tampered,
    "record that is plaintext": lambda: open_sealed(RING, READABLE.encode() * 20, CONTEXT),
    "key with bad base64": lambda: MasterKey.parse(f"{READABLE}%", variable="V"),
    "key with bad padding": lambda: MasterKey.parse(f"{READABLE}abc", variable="V"),
    "key too short": lambda: MasterKey.parse(ENCODED[:24], variable="V"),
    "key that is text": lambda: MasterKey.parse(READABLE_KEY, variable="V"),
    "master key pickled": lambda: pickle.dumps(MasterKey(SecretMaterial((READABLE + "0123456789").encode()))),
    "secret in the place of a ref": lambda: SecretRef.parse(f"whsec_{READABLE}"),
    "secret in a part of a ref": lambda: SecretRef.parse(f"db:acme:{READABLE}/+:1"),
    "secret as a version": lambda: SecretRef.parse(f"db:acme:name:{READABLE}"),
}


def _forgotten() -> Signer:
    signer = Signer("ref", signing_secret(f"whsec_{ENCODED}", Scheme.STANDARD), Scheme.STANDARD, Algorithm.HMAC)
    signer.forget()
    return signer


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__), *_chain(error.__context__)]


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS.keys())
def test_no_error_has_the_value(refuse: Callable[[], object]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- its content is tested, not its class
        refuse()

    texts = [f"{error!s} {error!r} {vars(error)}" for error in _chain(caught.value)]
    shown = "".join([*texts, *traceback.format_exception_only(caught.value)])
    for value in (READABLE, ENCODED[:20], READABLE_KEY[:20], READABLE.encode().hex()):
        assert value not in shown


# The class of an error says whether a retry can help.

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, CannotSign) and value is not CannotSign
]


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("error", ALL)
def test_every_error_is_either_definitive_or_transient(error: type[CannotSign]) -> None:
    assert issubclass(error, SecretError) != issubclass(error, Unavailable)
    assert issubclass(error, CannotSign)


@pytest.mark.req("SEC-07")
def test_unavailable_has_the_exit_code_of_an_outage() -> None:
    assert 69 == SecretUnavailable().exit_code


@pytest.mark.req("SEC-07")
def test_every_error_has_its_own_code_and_message() -> None:
    assert len(ALL) == len({error.code for error in ALL})
    assert len(ALL) == len({str(error()) for error in ALL})
