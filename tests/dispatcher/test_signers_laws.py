"""The laws of signers and header values, for the double and the real service."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import TlsIdentity
from hookseal.dispatcher.core.ports import Signers
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import CannotSign
from hookseal.ground.ids import TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme
from hookseal.operations.endpoint.rotation import signing
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.ref import Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.pointer import lock, move
from tests.doubles.claims import POINTER
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.replaced import replace
from tests.doubles.signers import FixedSigners
from tests.doubles.stored import Installation, begin

OWN = {"authorization": b"Bearer canary-4f1d", "x-inside": b"a \t b"}


@dataclass(frozen=True)
class Case:
    """Signers, a pointer in an overlap, and one whose previous secret is not available.

    The endpoint of `carrying` has the headers `OWN`; `headless` names headers that are not available.
    `sealed` gives a changed pointer a valid MAC.
    """

    signers: Signers
    broken: Signers
    pointer: Pointer
    unusable: Pointer
    carrying: Pointer
    headless: Pointer
    refs: tuple[str, ...]
    sealed: Callable[[Pointer], Pointer]


async def rotated(installation: Installation, first: Pointer) -> Pointer:
    """Give the endpoint a second secret, in an overlap with its first, and return its pointer."""
    tenant, endpoint_id = first.tenant_id, first.endpoint_id
    async with installation.pool.acquire() as connection, connection.transaction():
        found = await lock(connection, tenant=tenant, endpoint_id=endpoint_id)
        second = await installation.unlocked.store_on(connection).rotate(
            tenant, endpoint_secret_name(endpoint_id), generate_signing_secret(), purpose=Purpose.WEBHOOK_SIGNING
        )
        moved = await move(
            connection,
            installation.unlocked.integrity,
            found,
            secret_ref=str(second),
            previous_secret_ref=first.secret_ref,
            previous_secret_expires_at=datetime(2999, 1, 1, tzinfo=UTC),
            previous_due=True,
            previous_scheme="standard",
            previous_algorithm="hmac",
        )
        await installation.operator(connection).audit(Action.SECRET_ROTATED, of=moved, after=signing(moved))
        return moved


@pytest.fixture(params=["fixed", "service"])
async def case(request: pytest.FixtureRequest, begun_pool: Pool) -> Case:
    """Return a case for each implementation, with an endpoint in an overlap."""
    if request.param == "fixed":
        refs = ("db:acme:n:2", "db:acme:n:1")
        broken = FixedSigners(error=CannotSign(), headers_error=CannotSign())
        carrying = replace(POINTER, headers_ref="db:acme:h:1", tls_ref="db:acme:t:1")
        own = TlsIdentity(key="db:acme:t:1", context=ssl.create_default_context(), expires_at=1.0)
        return Case(
            signers=FixedSigners(*refs, headers=OWN, tls=own),
            broken=broken,
            pointer=POINTER,
            unusable=POINTER,
            carrying=carrying,
            headless=carrying,
            refs=refs,
            sealed=lambda pointer: pointer,
        )
    installation = await begin(begun_pool)
    unlocked = installation.unlocked
    subscribed = NewEndpoint(tenant_id=TenantId("acme"), url="https://receiver.example/hook", event_types=("*",))
    first = (await installation.add(subscribed, headers=OWN, tls=identity(Authority().client(), None))).pointer
    overlap = await rotated(installation, first)
    current, headers = SecretRef.parse(str(overlap.secret_ref)), SecretRef.parse(str(overlap.headers_ref))
    lost = replace(overlap, previous_secret_ref=str(replace(current, version=99)))

    def sealed(pointer: Pointer) -> Pointer:
        return replace(pointer, mac=unlocked.integrity.mac(pointer))

    return Case(
        signers=unlocked.service,
        broken=unlocked.service,
        pointer=sealed(replace(overlap, headers_ref=None, tls_ref=None)),
        unusable=sealed(lost),
        carrying=overlap,
        headless=sealed(
            replace(
                overlap,
                headers_ref=str(replace(headers, version=99)),
                tls_ref=str(overlap.tls_ref).removesuffix("1") + "99",
            )
        ),
        refs=(str(current), str(first.secret_ref)),
        sealed=sealed,
    )


@pytest.mark.req("DEL-03")
async def test_the_current_secret_signs_first(case: Case) -> None:
    async with case.signers.signers(case.pointer) as signers:
        assert case.refs == tuple(signer.ref for signer in signers)


@pytest.mark.req("DEL-04", part="standard-hmac")
async def test_signatures_are_header_words(case: Case) -> None:
    """A signature is one word of a header, starts with its version, and differs between secrets."""
    async with case.signers.signers(case.pointer) as signers:
        signatures = [signer.sign(b"content") for signer in signers]

    assert 2 == len(set(signatures))
    for signature in signatures:
        assert signature.startswith("v1,")
        assert not set(signature) & set(" \r\n\x00")


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("current", Scheme)
@pytest.mark.parametrize("previous", Scheme)
async def test_each_secret_signs_in_its_scheme(case: Case, current: Scheme, previous: Scheme) -> None:
    spelled = {Scheme.STANDARD: "v1,", Scheme.SVIX: "v1,", Scheme.X_WEBHOOK: "sha256="}
    pointer = case.sealed(replace(case.pointer, scheme=current.value, previous_scheme=previous.value))
    async with case.signers.signers(pointer) as signers:
        found = [(signer.scheme, signer.sign(b"content")) for signer in signers]

    assert [current, previous] == [scheme for scheme, _ in found]
    for scheme, signature in found:
        assert signature.startswith(spelled[scheme])
        assert not set(signature) & set(" \r\n\x00")


@pytest.mark.req("SEC-07")
async def test_all_signers_or_none_are_yielded(case: Case) -> None:
    with pytest.raises(CannotSign):
        async with case.broken.signers(case.unusable):
            pytest.fail("a signer was handed out")


async def test_blocks_of_one_pointer_may_overlap(case: Case) -> None:
    async with case.signers.signers(case.pointer) as one, case.signers.signers(case.pointer) as other:
        assert [signer.sign(b"x") for signer in one] == [signer.sign(b"x") for signer in other]


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_header_values_are_masked(case: Case) -> None:
    """The endpoint's own headers are available by name, byte for byte, and no repr shows a value."""
    async with case.signers.headers(case.carrying) as values:
        assert OWN == {name: value.reveal() for name, value in values.items()}
        assert "canary" not in f"{values} {values!r} {list(values.values())}"


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_an_endpoint_without_a_ref_gets_no_headers(case: Case) -> None:
    async with case.signers.headers(case.pointer) as values:
        assert {} == values


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_header_values_end_with_the_block(case: Case) -> None:
    async with case.signers.headers(case.carrying) as values:
        assert OWN.keys() == values.keys()
    with pytest.raises(KeyError):
        async with case.signers.headers(case.carrying) as others:
            raise KeyError

    assert ({}, {}) == (values, others)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_missing_header_values_are_an_error(case: Case) -> None:
    """If an endpoint's headers are not available, entering the block raises an error and yields no empty mapping."""
    with pytest.raises(CannotSign):
        async with case.broken.headers(case.headless):
            pytest.fail("the block was entered")


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_header_blocks_may_overlap(case: Case) -> None:
    """Several blocks for the same pointer may be open at once, and the end of one does not affect the other."""
    async with case.signers.headers(case.carrying) as one:
        async with case.signers.headers(case.carrying) as other:
            assert one.keys() == other.keys()
        assert OWN.keys() == one.keys()


@pytest.mark.req("DEL-13", part="client-keys")
async def test_an_identity_has_one_context(case: Case) -> None:
    """An endpoint with a TLS identity has one context under its ref, in all blocks; one without has none."""
    async with case.signers.tls(case.carrying) as one, case.signers.tls(case.carrying) as other:
        assert one is not None
        assert other is not None
        assert (str(case.carrying.tls_ref), True) == (one.key, one.context is other.context)
    async with case.signers.tls(case.pointer) as none:
        assert none is None


@pytest.mark.req("DEL-13", part="client-keys")
async def test_a_missing_identity_is_an_error(case: Case) -> None:
    """If an endpoint's TLS identity is not available, entering the block raises an error and does not yield None."""
    with pytest.raises(CannotSign):
        async with case.broken.tls(case.headless):
            pytest.fail("the block was entered")
