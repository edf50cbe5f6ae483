"""The secret ref: one grammar, one text form, and errors that name the part."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hookseal.errors import Malformed
from hookseal.ground.ids import OPERATOR_TENANT, SYSTEM_TENANT, TenantId
from hookseal.secrets.core.ref import MAX_VERSION, Provider, SecretRef, endpoint_secret_name
from tests.secrets.samples import ENDPOINT

pytestmark = pytest.mark.req("SEC-02")

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


@given(REFS)
@example(SecretRef(provider=Provider.OPENBAO, tenant=TenantId("t" * 63), name="n" * 128, version=MAX_VERSION))
def test_a_formatted_ref_is_parsed_back(ref: SecretRef) -> None:
    """The text of a ref parses to the same ref, and has at most 512 bytes."""
    assert ref == SecretRef.parse(str(ref))
    assert 512 >= len(str(ref).encode())


@given(st.one_of(st.text(), st.from_regex(r"[a-z]{0,8}:[a-z_.\n-]*:[a-z/.]*:[0-9\u0660-\u0669+]*")))
def test_a_ref_has_one_text_form(text: str) -> None:
    """Any text is either the only text form of a ref or malformed."""
    with suppress(Malformed):
        assert text == str(SecretRef.parse(text))


@pytest.mark.parametrize(("part", "text"), MALFORMED)
def test_every_malformed_class_names_its_part_only(part: str, text: str) -> None:
    """The error says which part is wrong and what it must be, and does not repeat the text."""
    with pytest.raises(Malformed) as caught:
        SecretRef.parse(text)

    assert "secret_ref" == caught.value.field
    assert str(caught.value).startswith(f"secret ref: its {part} must be ")
    assert not text or text not in str(caught.value)


def test_a_ref_of_the_installation_parses_inside_only() -> None:
    """A ref of `_system` is accepted only with `reserved`, which our own code uses."""
    ref = SecretRef(provider=Provider.DB, tenant=SYSTEM_TENANT, name="integrity", version=1)

    assert ref == SecretRef.parse(str(ref), reserved=True)
    with pytest.raises(Malformed, match="its tenant must be a tenant that is not reserved"):
        SecretRef.parse(str(ref))


def test_a_ref_of_the_operator_parses() -> None:
    """The operator has endpoints, and their rows name refs of `_operator`."""
    assert OPERATOR_TENANT == SecretRef.parse("db:_operator:name:1").tenant


def test_only_two_tenants_are_reserved() -> None:
    """Any other tenant with a leading underscore is malformed, even with `reserved`."""
    with pytest.raises(Malformed, match="its tenant"):
        SecretRef.parse("db:_other:name:1", reserved=True)


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


def test_an_endpoints_secret_is_named_for_it() -> None:
    """The name of an endpoint's signing secret contains the endpoint's id."""
    assert "webhook-endpoint-01890a5d-ac96-774b-bcce-b302099a8057" == endpoint_secret_name(ENDPOINT)
