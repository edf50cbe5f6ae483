"""Divides material into two halves, for a provider outside PostgreSQL. Neither half alone reveals anything of it.

The payload lies at the provider and is as long as the material. The share lies in PostgreSQL: the key of the payload,
which encrypts nothing else, and the tag. The tag covers the context, so a payload that was changed, or that belongs to
another tenant, name, version or purpose, is refused. Once the share is gone, every copy of the payload is worthless.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hookseal.errors import Malformed, RecordMalformed, SecretTampered
from hookseal.secrets.core.material import MAX_BYTES, SecretMaterial
from hookseal.secrets.core.ref import SecretContext

_FORMAT: Final = b"\x01"
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_NONCE: Final = bytes(12)  # a key encrypts one payload, so its nonce need not vary


class Halves(NamedTuple):
    """What lies in PostgreSQL, and what lies at the provider."""

    share: bytes
    payload: bytes


def divide(material: SecretMaterial, context: SecretContext, random_bytes: Callable[[int], bytes]) -> Halves:
    """Return the halves of the material, bound to the context. Raises `Malformed` unless it has 1 byte to 64 KiB."""
    if not 1 <= len(material) <= MAX_BYTES:
        raise Malformed(f"a secret must have 1 to {MAX_BYTES} bytes", field="secret")
    return _divided(random_bytes(_KEY_BYTES), material, context)


def divide_again(share: bytes, material: SecretMaterial, context: SecretContext) -> Halves:
    """Return the halves of the same material and context with the share of before, which gives the same payload.

    Raises `RecordMalformed` for a share of another format.
    """
    key, _ = _read(share)
    return _divided(key, material, context)


def join(halves: Halves, context: SecretContext) -> SecretMaterial:
    """Return the material of the halves.

    Raises `RecordMalformed` for a share of another format, and `SecretTampered` if the payload is not the one that was
    written for this context.
    """
    key, tag = _read(halves.share)
    try:
        return SecretMaterial(AESGCM(key).decrypt(_NONCE, halves.payload + tag, _bound(context)))
    except InvalidTag:
        raise SecretTampered(
            "what the provider returned is not what hookseal wrote there: somebody changed it, or put another secret "
            "in its place",
            advice="Find out who, restore it there, or run `hookseal endpoint rotate --overlap 0`",
            joint=". ",
        ) from None


def _divided(key: bytes, material: SecretMaterial, context: SecretContext) -> Halves:
    sealed = AESGCM(key).encrypt(_NONCE, material.reveal(), _bound(context))
    return Halves(share=_FORMAT + key + sealed[-_TAG_BYTES:], payload=sealed[:-_TAG_BYTES])


def _read(share: bytes) -> tuple[bytes, bytes]:
    """Return the key and the tag of the share."""
    if len(share) != len(_FORMAT) + _KEY_BYTES + _TAG_BYTES or not share.startswith(_FORMAT):
        raise RecordMalformed
    return share[len(_FORMAT) : -_TAG_BYTES], share[-_TAG_BYTES:]


def _bound(context: SecretContext) -> bytes:
    return _FORMAT + context.encode()
