"""The laws of what hands out signers: the double and the real service keep them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
import pytest

from hookseal.dispatcher.ports import Signers
from hookseal.ground.errors import CannotSign
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme
from hookseal.secrets.context import Purpose
from hookseal.secrets.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.signer import generate_signing_secret
from tests.doubles.claims import POINTER
from tests.doubles.signers import FixedSigners
from tests.doubles.stored import begin

Pool = asyncpg.Pool


@dataclass(frozen=True)
class Case:
    """Something that hands out signers, a pointer in an overlap, and one whose previous secret cannot be had.

    `sealed` makes a changed pointer one that its owner wrote.
    """

    signers: Signers
    broken: Signers
    pointer: Pointer
    unusable: Pointer
    refs: tuple[str, ...]
    sealed: Callable[[Pointer], Pointer]


@pytest.fixture(params=["fixed", "service"])
async def case(request: pytest.FixtureRequest, pool: "Pool[asyncpg.Record]") -> Case:
    """Give each implementation with an endpoint in an overlap."""
    if request.param == "fixed":
        refs = ("db:acme:n:2", "db:acme:n:1")
        broken = FixedSigners(error=CannotSign())
        return Case(
            signers=FixedSigners(*refs),
            broken=broken,
            pointer=POINTER,
            unusable=POINTER,
            refs=refs,
            sealed=lambda pointer: pointer,
        )
    installation = await begin(pool)
    unlocked = installation.unlocked
    first = (await installation.endpoint()).pointer
    name = endpoint_secret_name(first.endpoint_id)
    second = await unlocked.store.rotate(
        first.tenant_id, name, generate_signing_secret(), purpose=Purpose.WEBHOOK_SIGNING
    )
    overlap = replace(
        first,
        secret_ref=str(second),
        previous_secret_ref=first.secret_ref,
        previous_secret_expires_at=datetime(2999, 1, 1, tzinfo=UTC),
        previous_due=True,
        previous_scheme="standard",
        previous_algorithm="hmac",
        generation=2,
    )
    lost = replace(overlap, previous_secret_ref=str(replace(SecretRef.parse(str(second)), version=99)))

    def sealed(pointer: Pointer) -> Pointer:
        return replace(pointer, mac=unlocked.integrity.mac(pointer))

    return Case(
        signers=unlocked.service,
        broken=unlocked.service,
        pointer=sealed(overlap),
        unusable=sealed(lost),
        refs=(str(second), str(first.secret_ref)),
        sealed=sealed,
    )


@pytest.mark.req("DEL-03")
async def test_current_first(case: Case) -> None:
    """Every secret that is due signs, the current one's signer first, each under its ref."""
    async with case.signers.signers(case.pointer) as signers:
        assert case.refs == tuple(signer.ref for signer in signers)


@pytest.mark.req("DEL-04", part="standard-hmac")
async def test_signatures_are_header_words(case: Case) -> None:
    """A signature is one word of the header, tells its version, and differs from secret to secret."""
    async with case.signers.signers(case.pointer) as signers:
        signatures = [signer.sign(b"content") for signer in signers]

    assert 2 == len(set(signatures))
    for signature in signatures:
        assert signature.startswith("v1,")
        assert not set(signature) & set(" \r\n\x00")


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("current", Scheme)
@pytest.mark.parametrize("previous", Scheme)
async def test_each_signs_in_the_scheme_of_its_own_secret(case: Case, current: Scheme, previous: Scheme) -> None:
    """The pointer says for each of the two secrets which scheme it was made for, and its signer spells that one."""
    spelled = {Scheme.STANDARD: "v1,", Scheme.X_WEBHOOK: "sha256="}
    pointer = case.sealed(replace(case.pointer, scheme=current.value, previous_scheme=previous.value))
    async with case.signers.signers(pointer) as signers:
        found = [(signer.scheme, signer.sign(b"content")) for signer in signers]

    assert [current, previous] == [scheme for scheme, _ in found]
    for scheme, signature in found:
        assert signature.startswith(spelled[scheme])
        assert not set(signature) & set(" \r\n\x00")


@pytest.mark.req("SEC-07")
async def test_all_or_none(case: Case) -> None:
    """If one secret that is due cannot be had, none is handed out."""
    with pytest.raises(CannotSign):
        async with case.broken.signers(case.unusable):
            pytest.fail("a signer was handed out")


async def test_many_at_once(case: Case) -> None:
    """Blocks for the same pointer may be open side by side."""
    async with case.signers.signers(case.pointer) as one, case.signers.signers(case.pointer) as other:
        assert [signer.sign(b"x") for signer in one] == [signer.sign(b"x") for signer in other]
