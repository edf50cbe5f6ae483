"""Secret material is masked, is never copied by itself, and compares in constant time."""

import copy
import pickle
from collections.abc import Callable

import pytest

from hookseal.errors import Defect
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import Signer
from tests.secrets.samples import FIRST, INTEGRITY, RING, SECRET

pytestmark = pytest.mark.req("SEC-15", part="secrets")

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


def test_reveal_returns_the_bytes() -> None:
    """`reveal` returns the original bytes, and the length is known."""
    assert CANARY == MATERIAL.reveal()
    assert len(CANARY) == len(MATERIAL)


@pytest.mark.parametrize("show", [repr, str, format, "{:>40}".format, "{!r:.99}".format, "%s".__mod__, ascii])
def test_every_text_form_is_masked(show: Callable[[object], str]) -> None:
    """No text form of a material, however formatted, contains its value."""
    assert "SecretMaterial([masked])" == show(MATERIAL)


def test_containers_mask_material() -> None:
    """A container, an integrity key, a master key, a key ring and a signer are masked, too."""
    shown = repr(
        [[MATERIAL], {"a": MATERIAL}, INTEGRITY, FIRST, RING, Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC)]
    )

    assert CANARY.decode() not in shown
    assert "IntegrityKey(1)" in shown
    assert f"MasterKey({FIRST.key_id})" in shown
    assert "Signer(ref)" in shown


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize(
    "value",
    [MATERIAL, FIRST, Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC)],
    ids=lambda value: type(value).__name__,
)
def test_keys_are_not_copied_or_pickled(leave: Callable[[object], object], value: object) -> None:
    """Objects with key bytes refuse pickling, copying and the hooks beneath them."""
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        leave(value)


@pytest.mark.parametrize("value", [RING, INTEGRITY, [MATERIAL]], ids=lambda value: type(value).__name__)
def test_containers_of_keys_are_not_pickled(value: object) -> None:
    """A key ring, an integrity key or a container with key bytes cannot be pickled either."""
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        pickle.dumps(value)


def test_material_equals_only_the_same_bytes() -> None:
    """A material equals another one with the same bytes, and nothing else."""
    assert SecretMaterial(CANARY) == MATERIAL
    assert SecretMaterial(b"canary-4f1e") != MATERIAL
    assert SecretMaterial(b"") != MATERIAL
    assert (MATERIAL == CANARY) is False


def test_material_has_no_hash_and_cannot_be_iterated() -> None:
    """A material has no hash and no `__dict__`, and cannot be read as a sequence."""
    for read in (hash, vars, bytes, list, memoryview):
        with pytest.raises(TypeError):
            read(MATERIAL)  # type: ignore[arg-type, call-overload]


@pytest.mark.parametrize("value", ["canary-4f1d", 5, bytearray(b"x"), None])
def test_only_bytes_are_accepted(value: object) -> None:
    """Anything but bytes is refused, and the error does not repeat it."""
    with pytest.raises(TypeError, match=r"^secret material is made from bytes$"):
        SecretMaterial(value)  # type: ignore[arg-type]


def test_a_master_key_has_32_bytes() -> None:
    """A master key must have exactly 32 bytes."""
    with pytest.raises(Defect):
        type(FIRST)(SecretMaterial(bytes(31)))
    assert (FIRST,) == KeyRing(FIRST).keys
